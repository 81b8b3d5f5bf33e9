"""What single stores promise beyond the suite: requests on the wire, crashes on disk, races between processes."""

import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import pytest

from components.core.errors import DataError, DualError, StaleError
from components.core.stores import open_store
from components.core.stores.local import LocalStore
from tests.store import fake_gcs, fake_s3
from tests.store.conftest import Opener


def test_contract_writes_carry_their_precondition_on_cloud_storage(gcs_bucket: fake_gcs.Bucket, gcs_opener: Opener) -> None:
    store = gcs_opener()
    store.put_if_absent("a", b"1")
    generation = store.get("a").generation
    store.swap("a", b"2", generation)
    assert f"POST multipart ifGenerationMatch={generation}" in gcs_bucket.requests
    assert "POST multipart ifGenerationMatch=0" in gcs_bucket.requests
    assert list(gcs_bucket.objects) == ["team/flowers/a"]


@pytest.mark.parametrize("first", [None, b"0"])
def test_a_repeated_upload_whose_answer_was_lost_is_ours(gcs_bucket: fake_gcs.Bucket, gcs_opener: Opener, first: bytes | None) -> None:
    store = gcs_opener()
    generation = store.swap("c", first, None) if first else None
    gcs_bucket.lose_answers = 1
    after = store.swap("c", b"1", generation)
    assert store.get("c").generation == after
    with pytest.raises(StaleError):
        store.swap("c", b"1", generation)


def test_contract_writes_carry_their_precondition_on_s3(s3_bucket: fake_s3.Bucket, s3_opener: Opener) -> None:
    store = s3_opener()
    store.put_if_absent("a", b"1")
    store.swap("a", b"2", store.get("a").generation)
    assert "PUT team/flowers/a If-None-Match=* If-Match=None" in s3_bucket.requests
    assert f"PUT team/flowers/a If-None-Match=None If-Match={fake_s3.etag(b'1')}" in s3_bucket.requests


def test_a_write_at_the_same_moment_is_no_lost_update_on_s3(s3_bucket: fake_s3.Bucket, s3_opener: Opener) -> None:
    store = s3_opener()
    generation = store.swap("a", b"1", None)
    s3_bucket.conflicts = 1
    try:
        store.swap("a", b"2", generation)
    except StaleError:
        assert store.get("a").data == b"1"
    else:
        assert store.get("a").data == b"2"


def test_names_that_the_s3_client_would_change_are_refused(s3_opener: Opener) -> None:
    with pytest.raises(DataError, match="holds #"):
        s3_opener().put("runs/#1/record.json", b"")


@pytest.mark.parametrize("address", ["gs://models/x", "s3://models/x"])
def test_a_service_that_is_not_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    from google.cloud.storage import retry

    monkeypatch.setattr(retry.DEFAULT_RETRY, "_timeout", 0.2)
    for name, value in {"ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x", "REGION": "r", "ENDPOINT_URL": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(DualError, match="can't be reached"):
        open_store(address).get("channels/stable.json")


def test_leftovers_of_a_killed_writer_are_invisible_and_go_after_a_day(tmp_path: Path) -> None:
    (tmp_path / ".tmp").mkdir()
    old, young = tmp_path / ".tmp" / "old", tmp_path / ".tmp" / "young"
    for path in (old, young):
        path.write_bytes(b"half")
    day_ago = time.time() - 100_000
    os.utime(old, (day_ago, day_ago))
    store = LocalStore(tmp_path)
    assert list(store.list("")) == []
    store.put("a", b"whole")
    assert not old.exists()
    assert young.exists()
    assert list(store.list("")) == ["a"]


def test_unfinished_writes_are_no_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unfinished"):
        LocalStore(tmp_path).put(".tmp/x", b"")


def test_a_folder_can_not_hold_an_object_and_objects_below_it(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a", b"")
    with pytest.raises(DataError, match="below an object"):
        store.put_if_absent("a/b", b"")
    store.put("c/d", b"")
    with pytest.raises(DataError, match="objects are below it"):
        store.put_if_absent("c", b"")
    assert store.find("a/b") is None


def test_a_folder_without_permission_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dir: Path) -> None:
        raise PermissionError(13, os.strerror(13), str(dir))

    # Not by chmod: root may write anywhere.
    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(DualError, match="refuses: Permission denied"):
        LocalStore(tmp_path).put("a", b"")


def test_a_full_disk_is_one_clear_line_and_leaves_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    store.put("a", b"before")

    def full(handle: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DualError, match="No space left on device"):
        store.put("a", b"after")
    assert store.get("a").data == b"before"
    assert [path.name for path in (tmp_path / ".tmp").iterdir()] == []


def test_processes_race_for_one_swap_and_one_wins_each_round(tmp_path: Path) -> None:
    LocalStore(tmp_path).swap("counter", b"0", None)
    context = multiprocessing.get_context("forkserver")
    racers = [context.Process(target=_count_up, args=(tmp_path, 40)) for _ in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    assert [racer.exitcode for racer in racers] == [0, 0]
    assert LocalStore(tmp_path).get("counter").data == b"80"
    assert len(list(LocalStore(tmp_path).list("made/"))) == 40
    assert sum(int(LocalStore(tmp_path).get(f"won/{name}").data) for name in ("0", "1")) == 40


def _count_up(root: Path, rounds: int) -> None:
    store = LocalStore(root)
    made, done = 0, 0
    for number in range(rounds):
        made += store.put_if_absent(f"made/{number}", str(os.getpid()).encode())
    while done < rounds:
        found = store.get("counter")
        try:
            store.swap("counter", str(int(found.data) + 1).encode(), found.generation)
        except StaleError:
            continue
        done += 1
    assert store.put_if_absent("won/0", str(made).encode()) or store.put_if_absent("won/1", str(made).encode())


def test_a_large_file_goes_in_parts_on_s3(s3_bucket: fake_s3.Bucket, s3_opener: Opener) -> None:
    data = bytes(range(256)) * (12 << 12)
    s3_opener().put("cache/model", data)
    assert s3_opener().get("cache/model").data == data
    assert s3_bucket.uploads == {}, "an upload was left unfinished"
    assert not [line for line in s3_bucket.requests if line.startswith("PUT team/flowers/cache/model")], "it went in one piece"
