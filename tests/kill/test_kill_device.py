"""kill -9 at every write of a device's update: the old version or the new one is in service, whole, and the next update ends well."""

import shutil
from pathlib import Path

import pytest

from components.core.stores import open_store
from tests.client.device_site import Site, make_site
from tests.conftest import tiny_jpeg
from tests.kill.victims import Zygote, update_device_job
from tests.release_pieces import LABELS

WRITES = 9
"""Flush, rename and flush of the folder: of the state (seen), the model, the state (in service)."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("site"), 2)


@pytest.fixture
def site(made: Site, tmp_path: Path) -> Site:
    shutil.copytree(made.store.uri, tmp_path / "store")
    site = Site(open_store(str(tmp_path / "store")), made.releases, made.key)
    (tmp_path / "keyring.json").write_bytes(site.trust.keyring.to_json())
    site.publish(0)
    site.device(tmp_path / "device").update()
    site.publish(1)
    return site


def update(zygote: Zygote, tmp_path: Path, write: int, moment: str) -> int:
    arguments = (str(tmp_path / "device"), str(tmp_path / "keyring.json"), str(write), moment)
    return zygote.run(update_device_job, tmp_path / "store", None, *arguments)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("write", range(1, WRITES + 1))
def test_update_killed_at_every_write(zygote: Zygote, site: Site, tmp_path: Path, write: int, moment: str) -> None:
    before = site.device(tmp_path / "device").state()
    assert update(zygote, tmp_path, write, moment) == -9
    device = site.device(tmp_path / "device")
    state, model = device.state(), device.open()
    assert model.installed.release in {release.id for release in site.releases}
    assert model.installed == state.current
    assert model.classify(tiny_jpeg(1, 5)).label == LABELS[1]
    assert (state.installation, state.sequence >= before.sequence) == (before.installation, True)
    assert update(zygote, tmp_path, 0, "") == 0
    assert device.open().installed.release == site.releases[1].id
    assert device.update().outcome == "kept"
    models = {path.name for path in (tmp_path / "device" / "models").iterdir()}
    assert models == {f"{release.mobile_file().sha256}.tflite" for release in site.releases}


def test_no_write_is_left_out_above(zygote: Zygote, site: Site, tmp_path: Path) -> None:
    assert update(zygote, tmp_path, WRITES + 1, "before") == 0
