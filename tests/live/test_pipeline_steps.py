"""The steps roll_out_cloud and publish_mobile on real pods, as the pipeline calls them: the pair ships whole, or stays where it was."""

import json
from pathlib import Path

import pytest

from components.core.channel import read_channel
from components.core.errors import DataError
from components.core.record import open_step, read_records
from components.core.release import read_release
from components.core.stores import join
from components.publish_mobile.private_key import make_key
from components.publish_mobile.publish import publish
from components.publish_mobile.signing import KEY_VARIABLE
from components.roll_out_cloud.roll_out import roll_out
from serving.rollout.cluster.objects import live_of
from tests.live.cluster import LiveSite
from tests.live.steps import state_of

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a cluster the publisher is given its key."""
    monkeypatch.setenv(KEY_VARIABLE, make_key().pem().decode())


def settings_of(site: LiveSite) -> str:
    cluster = site.settings().model_dump(mode="json")
    return json.dumps({"name": "classifier", "roll_out_cloud": {"target": "kubernetes", "kubernetes": cluster}})


def run(site: LiveSite, release: str, run_id: str) -> None:
    """Both steps, one after the other."""
    where = {"store": site.releases.store.uri, "run_id": run_id}
    with open_step("roll_out_cloud", **where) as record:
        roll_out(record, release=site.releases[release], settings=settings_of(site))
    with open_step("publish_mobile", **where) as record:
        publish(record, release=site.releases[release], settings=settings_of(site))


def serving(site: LiveSite) -> str:
    return live_of(site.api.get("Service", "classifier")).stable[:12]


def test_the_pair_ships_whole_or_goes_back_whole(site: LiveSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(site.identity(tmp_path)))
    store = site.releases.store
    run(site, "a", "run-1")
    run(site, "b", "run-2")
    channel = read_channel(store)
    assert channel is not None
    assert channel[0].release == serving(site) == site.releases["b"]
    record = read_records(store, "run-2")["roll_out_cloud"]
    assert record.verdict is not None
    assert record.verdict.blessed
    assert [picture.file for picture in record.pictures] == ["timeline.png"]
    assert {table.name for table in record.tables} >= {"Time line", "Analysis"}

    damaged = read_release(store, site.releases["c"])
    store.put(join(damaged.folder(), damaged.models.mobile.path, "model.tflite"), b"damaged")
    with pytest.raises(DataError, match="damaged"):
        run(site, "c", "run-3")
    after = read_channel(store)
    assert after is not None
    assert after[0].release == serving(site) == site.releases["b"]
    state = state_of(site)
    assert state is not None
    assert state.phase == "aborted"
    assert "the cloud rollout of" in " ".join(read_records(store, "run-3")["publish_mobile"].warnings)
