"""A device takes what is published after every check, and whatever goes wrong, it keeps answering with what it has."""

import contextlib
import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from components.core.channel import read_channel
from components.core.envelope import seal
from components.core.errors import (
    DamagedError,
    DeviceStorageError,
    DualError,
    OfflineError,
    RollbackError,
    SelfTestError,
    UnsupportedError,
    UntrustedError,
)
from components.core.keyring import Keyring
from components.core.staging import bucket
from components.core.stores import Store
from components.core.stores.local import LocalStore
from components.publish_mobile.private_key import make_key
from components.publish_mobile.publication import undo_publication
from components.publish_mobile.steer import pause, widen
from serving.client.device import Device, Update
from serving.client.selftest import load_litert
from serving.client.shelf import Shelf
from serving.client.trust import Trust
from tests.client.device_site import Site, change_manifest, serves
from tests.client.test_attacks import blob_of, lose_blob, other_answers, strip_signatures
from tests.conftest import ROOT, tiny_jpeg
from tests.release_pieces import CHANNEL, LABELS, manifest_of
from tests.unit.test_channel import put_first_version


def test_first_update_installs_second_keeps_third_swaps(site: Site, tmp_path: Path) -> None:
    device = site.device(tmp_path / "device")
    with pytest.raises(OfflineError, match="nothing is published"):
        device.update()
    with pytest.raises(DamagedError, match="no model was installed"):
        device.open()
    site.publish(0)
    assert device.update() == Update("installed", site.releases[0].id, 1, True)
    assert device.update() == Update("kept", site.releases[0].id, 1, True)
    assert serves(device, site, 0)
    site.publish(1)
    assert device.update().outcome == "installed"
    assert serves(device, site, 1)
    state = device.state()
    assert state.previous is not None
    assert (state.sequence, state.previous.release) == (2, site.releases[0].id)


def test_only_the_model_in_service_and_the_one_before_stay(device: Device, site: Site, tmp_path: Path) -> None:
    for number in (1, 2):
        site.publish(number)
        device.update()
    kept = {path.stem for path in (tmp_path / "device" / "models").iterdir()}
    assert kept == {site.releases[number].mobile_file().sha256 for number in (1, 2)}


def test_an_undo_needs_no_download(device: Device, site: Site, tmp_path: Path) -> None:
    site.publish(1)
    device.update()
    undo_publication(site.store, "worse", site.signing)
    for name in list(site.store.list("mobile/blobs/")):
        site.store.delete(name)
    assert device.update().outcome == "installed"
    assert serves(device, site, 0)


def test_no_tensorflow_on_the_device(site: Site, tmp_path: Path) -> None:
    site.publish(0)
    (tmp_path / "keyring.json").write_bytes(site.trust.keyring.to_json())
    (tmp_path / "image.jpg").write_bytes(tiny_jpeg(1, 5))
    code = """
import sys
from pathlib import Path
from components.core.keyring import read_keyring
from components.core.stores import open_store
from serving.client.device import Device
from serving.client.layered import LayeredModel
from serving.client.trust import Trust
folder = Path(sys.argv[1])
device = Device(folder / "device", open_store(sys.argv[2]), Trust(read_keyring(folder / "keyring.json")))
device.update()
print(LayeredModel(device.open(), None).classify((folder / "image.jpg").read_bytes()).label)
sys.exit(",".join(m for m in ("tensorflow", "keras", "kfp", "kubernetes", "grpc", "matplotlib") if m in sys.modules) or 0)
"""
    command = [sys.executable, "-c", code, str(tmp_path), site.store.uri]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (result.returncode, result.stdout.strip()) == (0, LABELS[1]), result.stderr


def test_a_model_that_failed_here_is_not_downloaded_again(device: Device, site: Site, tmp_path: Path) -> None:
    site.publish(1)
    other_answers(site)
    fetched: list[str] = []

    class Counting(LocalStore):
        def copy_file(self, name: str, path: Path, limit: int | None = None) -> None:
            fetched.append(name)
            super().copy_file(name, path, limit)

    counting = site.device(tmp_path / "device", Counting(tmp_path / "store"))
    for _ in range(3):
        with pytest.raises(SelfTestError):
            counting.update()
    assert [name for name in fetched if name.endswith(".tflite")] == [blob_of(site)]


def test_a_rollback_is_refused_after_a_restart_and_after_a_failed_download(site: Site, tmp_path: Path) -> None:
    site.publish(0)
    old = site.store.get(CHANNEL).data
    site.device(tmp_path / "device").update()
    site.publish(1)
    lose_blob(site)
    with pytest.raises(DamagedError):
        site.device(tmp_path / "device").update()
    site.store.put(CHANNEL, old)
    with pytest.raises(RollbackError, match="has seen 2"):
        site.device(tmp_path / "device").update()


def test_a_stale_cache_is_a_rollback_and_passes(device: Device, site: Site) -> None:
    old = site.store.get(CHANNEL).data
    site.publish(1)
    new = site.store.get(CHANNEL).data
    device.update()
    site.store.put(CHANNEL, old)
    with pytest.raises(RollbackError):
        device.update()
    assert serves(device, site, 1)
    site.store.put(CHANNEL, new)
    assert device.update().outcome == "kept"


@pytest.mark.parametrize("year", [1970, 2099])
def test_the_clock_decides_nothing(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, year: int) -> None:
    site.publish(0)
    ended = site.key.public.model_copy(update={"not_after": "2020-01-01T00:00:00+00:00"})
    moment = (year - 1970) * 31_556_952.0
    monkeypatch.setattr("time.time", lambda: moment)
    device = Device(tmp_path / "device", site.store, Trust(Keyring(keys=[ended])))
    assert device.update().outcome == "installed"
    change_manifest(site, lambda manifest: manifest.update(sequence=2, published="1999-01-01T00:00:00+00:00"))
    assert device.update().sequence == 2


def test_both_keys_of_a_rotation_are_trusted_by_old_and_new_apps(site: Site, tmp_path: Path) -> None:
    site.publish(0)
    new = make_key()
    site.store.put(CHANNEL, seal(json.dumps(manifest_of(site.store)).encode(), [site.key, new]).to_json())
    for number, key in enumerate((site.key, new)):
        trust = Trust(Keyring(keys=[key.public]))
        assert Device(tmp_path / f"device-{number}", site.store, trust).update().outcome == "installed"
    site.store.put(CHANNEL, seal(json.dumps(manifest_of(site.store)).encode(), [new]).to_json())
    with pytest.raises(UntrustedError):
        Device(tmp_path / "device-0", site.store, site.trust).update()
    assert Device(tmp_path / "device-1", site.store, Trust(Keyring(keys=[new.public]))).update().outcome == "kept"


def test_an_unsigned_channel_is_taken_only_if_told(site: Site, tmp_path: Path) -> None:
    site.publish(0)
    strip_signatures(site)
    told = Trust(site.trust.keyring, unsigned=True)
    assert Device(tmp_path / "told", site.store, told).update().outcome == "installed"
    put_first_version(site.store)
    assert Device(tmp_path / "told-too", site.store, told).update().outcome == "installed"
    with pytest.raises(UntrustedError):
        Device(tmp_path / "strict", site.store, site.trust).update()


# Percentages.


def with_bucket(site: Site, folder: Path, low: int, high: int) -> Device:
    """A device whose installation is in that part of the candidate's buckets."""
    salt = manifest_of(site.store)["staging"]["salt"]
    name = next(n for n in (f"00000000-0000-4000-8000-{i:012}" for i in range(100_000)) if low <= bucket("stable", salt, n) < high)
    shelf = Shelf(folder)
    shelf.write(shelf.read().model_copy(update={"installation": name}))
    return site.device(folder)


def test_a_share_takes_the_candidate_and_the_others_the_fallback(site: Site, tmp_path: Path) -> None:
    site.publish(0)
    site.publish(1, basis_points=1000)
    inside, outside = with_bucket(site, tmp_path / "in", 0, 1000), with_bucket(site, tmp_path / "out", 1000, 3000)
    assert inside.update() == Update("installed", site.releases[1].id, 2, True)
    assert outside.update() == Update("installed", site.releases[0].id, 2, False)
    tester = site.device(tmp_path / "out", tester=True)
    assert tester.update().release == site.releases[1].id
    assert outside.update().release == site.releases[0].id
    widen(site.store, 3000, signing=site.signing)
    assert outside.update() == Update("installed", site.releases[1].id, 3, True)
    assert inside.update().outcome == "kept"


def test_a_pause_stops_new_ones_and_keeps_those_who_have_it(site: Site, tmp_path: Path) -> None:
    site.publish(0)
    site.publish(1, basis_points=5000)
    early, late = with_bucket(site, tmp_path / "early", 0, 5000), with_bucket(site, tmp_path / "late", 0, 5000)
    early.update()
    pause(site.store, signing=site.signing)
    assert early.update() == Update("kept", site.releases[1].id, 3, True)
    assert late.update() == Update("installed", site.releases[0].id, 3, False)
    undo_publication(site.store, "", site.signing)
    assert early.update().release == site.releases[0].id


def test_a_first_release_that_is_staged_leaves_the_others_with_nothing(site: Site, tmp_path: Path) -> None:
    site.publish(0, basis_points=1000)
    outside = with_bucket(site, tmp_path / "out", 1000, 10_000)
    assert outside.update() == Update("nothing", "", 1, False)
    with pytest.raises(DamagedError):
        outside.open()


def test_a_new_installation_is_a_random_uuid_that_stays(device: Device, site: Site, tmp_path: Path) -> None:
    first = device.state().installation
    assert device.state().installation == site.device(tmp_path / "device").state().installation == first
    other = site.device(tmp_path / "other")
    other.update()
    assert other.state().installation != first
    assert len(first) == 36


# The device's own disk.


def test_a_model_that_rots_on_the_device_is_replaced_by_the_one_before_and_then_fetched_anew(device: Device, site: Site) -> None:
    site.publish(1)
    device.update()
    rot = device._shelf.model(site.releases[1].mobile_file().sha256)
    rot.write_bytes(rot.read_bytes()[:-1] + b"?")
    assert serves(device, site, 0)
    assert device.update().outcome == "installed"
    assert serves(device, site, 1)


def test_a_damaged_state_says_what_to_do(device: Device, site: Site, tmp_path: Path) -> None:
    (tmp_path / "device" / "state.json").write_text("{")
    with pytest.raises(DeviceStorageError, match="Delete the folder"):
        device.update()


def test_going_back_by_itself_lasts_until_the_channel_changes(device: Device, site: Site) -> None:
    site.publish(1)
    device.update()
    assert device.go_back("the app crashed three times").release == site.releases[0].id
    with pytest.raises(SelfTestError, match="crashed three times"):
        device.update()
    assert serves(device, site, 0)
    with pytest.raises(DamagedError, match="no version before"):
        device.go_back("again")
    site.publish(2)
    assert device.update().outcome == "installed"
    assert serves(device, site, 2)


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", range(1, 8))
def test_a_full_disk_at_any_write_leaves_the_old_version(device: Device, site: Site, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """`fsync` is where a full disk shows at the latest; there are six in an update (two a file that is kept)."""
    site.publish(1)
    real, count = os.fsync, 0

    def fsync(handle: int) -> None:
        nonlocal count
        count += 1
        if count == call:
            raise FULL
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    full = pytest.raises(DeviceStorageError, match="No space left") if call <= 6 else contextlib.nullcontext()
    with full:
        device.update()
    assert serves(device, site, 0) or serves(device, site, 1)
    monkeypatch.setattr(os, "fsync", real)
    assert device.update().release == site.releases[1].id
    assert serves(device, site, 1)


def test_a_disk_that_is_full_during_the_download(device: Device, site: Site, tmp_path: Path) -> None:
    site.publish(1)

    class Full(LocalStore):
        def copy_file(self, name: str, path: Path, limit: int | None = None) -> None:
            if name.endswith(".tflite"):
                path.write_bytes(b"half")
                raise FULL
            super().copy_file(name, path, limit)

    with pytest.raises(DeviceStorageError, match="No space left"):
        site.device(tmp_path / "device", Full(tmp_path / "store")).update()
    assert serves(device, site, 0)
    assert list((tmp_path / "device" / "models").glob(".*")) == []


def test_two_updates_at_once_are_one_after_the_other(device: Device, site: Site, tmp_path: Path) -> None:
    site.publish(1)
    outcomes: list[str] = []
    threads = [threading.Thread(target=lambda: outcomes.append(site.device(tmp_path / "device").update().outcome)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["installed", "kept", "kept", "kept"]


def test_the_model_needs_the_runtime_that_its_file_says(site: Site, tmp_path: Path) -> None:
    site.publish(0)
    minimum = manifest_of(site.store)["mobile"]["minimum_runtime"]
    assert minimum.count(".") == 2
    with pytest.raises(UnsupportedError, match=minimum):
        site.device(tmp_path / "old", runtime="1.4.0").update()
    assert site.device(tmp_path / "new", runtime=minimum).update().outcome == "installed"


def test_a_source_that_fails_is_offline_and_the_old_version_stays(device: Device, site: Site, tmp_path: Path) -> None:
    class Refusing(LocalStore):
        def copy_file(self, name: str, path: Path, limit: int | None = None) -> None:
            raise DualError("the server refuses (403)", where=name)

    store: Store = Refusing(tmp_path / "store")
    with pytest.raises(OfflineError, match="403"):
        site.device(tmp_path / "device", store).update()
    assert serves(device, site, 0)


def test_a_runner_that_breaks_is_a_failed_selftest(device: Device, site: Site, tmp_path: Path) -> None:
    site.publish(1)

    def load(path: Path) -> Any:
        runner = load_litert(path)
        monkey: Any = runner
        monkey.predict_raw = lambda pixels: (_ for _ in ()).throw(RuntimeError("delegate"))
        return runner

    with pytest.raises(SelfTestError, match="delegate"):
        site.device(tmp_path / "device", load=load).update()
    assert read_channel(site.store)[0].sequence == 2  # type: ignore[index]
    assert serves(device, site, 0)
