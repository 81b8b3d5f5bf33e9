"""A device over http: whatever a request is answered with, the error is typed, the old version stays, and the next update ends well."""

from pathlib import Path

import pytest

from components.core.download import Patience
from components.core.errors import DamagedError, OfflineError, RollbackError, UpdateError
from components.core.stores.http import HttpStore
from serving.client.device import Device
from tests.client.device_site import Site, serves
from tests.release_pieces import CHANNEL
from tests.store.test_http import Plan
from tests.store.test_http import plan as plan  # noqa: PLC0414 - a fixture

QUICK = Patience(attempts=2, first_wait=0.01, timeout=2.0)
REQUESTS = 3
"""Channel, model, self-test."""


@pytest.fixture
def device(site: Site, plan: Plan, tmp_path: Path) -> Device:
    """A device that took the first release over http, and is about to be offered the second."""
    device = site.device(tmp_path / "device", HttpStore(f"{plan.address}/store", QUICK))
    site.publish(0)
    offer(plan, site)
    device.update()
    site.publish(1)
    offer(plan, site)
    return device


def offer(plan: Plan, site: Site) -> None:
    """Serve what the store holds now."""
    for prefix in ("channels/", "mobile/"):
        for name in site.store.list(prefix):
            plan.objects[f"/store/{name}"] = site.store.get(name).data


@pytest.mark.parametrize("status", [400, 401, 403, 409, 412, 429, 500, 502, 503])
@pytest.mark.parametrize("request_number", range(REQUESTS))
def test_a_refused_request_is_offline(device: Device, site: Site, plan: Plan, status: int, request_number: int) -> None:
    plan.statuses = [200] * request_number + [status] * QUICK.attempts
    with pytest.raises(OfflineError, match=str(status)):
        device.update()
    plan.statuses = []
    assert serves(device, site, 0)
    assert device.update().outcome == "installed"
    assert serves(device, site, 1)


@pytest.mark.parametrize(("request_number", "error"), [(0, OfflineError), (1, DamagedError), (2, DamagedError)])
def test_a_missing_file(device: Device, site: Site, plan: Plan, request_number: int, error: type[UpdateError]) -> None:
    plan.statuses = [200] * request_number + [404]
    with pytest.raises(error):
        device.update()
    assert serves(device, site, 0)
    assert device.update().outcome == "installed"


def test_a_broken_download_is_continued(device: Device, site: Site, plan: Plan) -> None:
    plan.cut_at = [10_000, 100]
    assert device.update().outcome == "installed"
    assert serves(device, site, 1)


def test_a_download_that_breaks_every_time_is_offline(device: Device, site: Site, plan: Plan) -> None:
    plan.cut_at = [10_000, 100, 100]
    with pytest.raises(OfflineError):
        device.update()
    assert serves(device, site, 0)


def test_a_cache_that_answers_with_an_old_channel(device: Device, site: Site, plan: Plan) -> None:
    new = plan.objects[f"/store/{CHANNEL}"]
    device.update()
    site.publish(2)
    offer(plan, site)
    device.update()
    plan.objects[f"/store/{CHANNEL}"] = new
    with pytest.raises(RollbackError):
        device.update()
    assert serves(device, site, 2)


def test_nobody_listens(site: Site, tmp_path: Path) -> None:
    device = site.device(tmp_path / "device", HttpStore("http://127.0.0.1:9/store", QUICK))
    with pytest.raises(OfflineError, match="can't be reached"):
        device.update()
