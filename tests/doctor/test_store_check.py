"""The store is tried, every broken promise is told, and nothing is left behind."""

from pathlib import Path
from typing import Any

import pytest

from components.core.stores import Store, open_store
from components.core.stores.local import LocalStore
from pipelines.doctor import store as subject
from pipelines.doctor.data import check_data
from pipelines.doctor.store import check_store
from pipelines.doctor.visit import Visit
from tests.doctor.conftest import only
from tests.rollout.web import unused_port
from tests.store.conftest import gcs_bucket, s3_bucket
from tests.store.fake_gcs import Bucket

__all__ = ["gcs_bucket", "s3_bucket"]
EVERYTHING = "put-if-absent, get, list, compare-and-swap, delete"


def visit(store: str, target: str = "local") -> Visit:
    return Visit(target=target, store=store)


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


def test_a_folder_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "store" / "releases").mkdir(parents=True)
    (tmp_path / "store" / "releases" / "x").write_text("kept")
    before = files(tmp_path)
    found = only(check_store(visit(str(tmp_path / "store"))))
    assert (found.status, found.found) == ("ok", f"{tmp_path / 'store'}: {EVERYTHING}")
    assert files(tmp_path) == before


def test_a_folder_that_is_not_there_yet_is_not_there_afterwards(tmp_path: Path) -> None:
    assert only(check_store(visit(str(tmp_path / "a" / "b")))).status == "ok"
    assert files(tmp_path) == []


def test_a_folder_that_may_not_be_written_is_told() -> None:
    # Nobody makes files there, not even root.
    found = only(check_store(visit("/proc/dual/store")))
    assert (found.status, "/proc/dual/store" in found.found, "permissions" in found.fix) == ("failed", True, True), found


def test_a_file_where_the_store_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("I am a file")
    found = only(check_store(visit(str(tmp_path / "store"))))
    assert (found.status, str(tmp_path / "store") in found.found) == ("failed", True)
    assert (tmp_path / "store").read_text() == "I am a file"


def test_a_bucket_is_tried_and_left_empty(gcs_bucket: Bucket) -> None:
    found = only(check_store(visit("gs://models/team", "kubeflow")))
    assert (found.status, found.found) == ("ok", f"gs://models/team: {EVERYTHING}")
    assert gcs_bucket.objects == {}


def test_an_s3_bucket_is_tried_and_left_empty(s3_bucket: Any) -> None:
    found = only(check_store(visit("s3://models/team", "kubeflow")))
    assert (found.status, found.found) == ("ok", f"s3://models/team: {EVERYTHING}")
    assert s3_bucket.objects == {}


def test_what_a_killed_doctor_left_long_ago_is_removed_and_what_another_one_tries_now_is_not(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    store.put("doctor/1000000000-aaaa", b"old")
    store.put("doctor/99999999999-bbbb", b"now")
    assert only(check_store(visit(str(tmp_path / "store")))).status == "ok"
    assert list(store.list("doctor/")) == ["doctor/99999999999-bbbb"]


def broken(**methods: Any) -> type[LocalStore]:
    return type("Broken", (LocalStore,), methods)


def _overwrites(self: Store, name: str, data: bytes) -> bool:
    self.put(name, data)
    return True


def _swaps_always(self: Store, name: str, data: bytes, generation: str | None) -> str:
    self.put(name, data)
    return generation or ""


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ({"put_if_absent": _overwrites}, "put-if-absent replaced an object"),
        ({"swap": _swaps_always}, "compare-and-swap replaced a changed object"),
        ({"list": lambda self, prefix: iter([])}, "list does not show"),
    ],
)
def test_a_store_that_breaks_a_promise_is_told_and_cleaned(
    methods: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = broken(**methods)
    monkeypatch.setattr(subject, "open_store", lambda _: made(tmp_path / "store"))
    found = only(check_store(visit(str(tmp_path / "store"))))
    assert (found.status, words in found.found, "conditional writes" in found.fix) == ("failed", True, True), found
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("uri", "target", "words"),
    [
        ("", "local", "no store was named"),
        ("folder", "kubeflow", "pods can't see"),
        ("ftp://host/x", "kubeflow", "is not a store"),
        ("https://host.example/x", "kubeflow", "host.example"),
    ],
)
def test_a_store_that_can_not_be_used_is_told(uri: str, target: str, words: str) -> None:
    found = only(_looked(visit(uri, target)))
    assert words in found.found + found.fix
    assert found.status in ("failed", "skipped")


def test_a_bucket_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    from pipelines.doctor.examine import Check, examine

    check = Check("store", check_store, frozenset({"kubeflow"}), "")
    (found,) = examine(Visit(target="kubeflow", store="s3://models/x", seconds=3), [check])
    assert found.status == "failed"


def test_data_in_a_bucket_is_found_by_one_name(gcs_bucket: Bucket) -> None:
    store = open_store("gs://images/flowers")
    for number in range(5):
        store.put(f"daisy/{number}.jpg", b"x")
    gcs_bucket.requests.clear()
    found = only(check_data(Visit(target="vertex", data="gs://images/flowers/")))
    assert (found.status, "flowers/daisy/0.jpg" in found.found) == ("ok", True)
    assert [request for request in gcs_bucket.requests if request.endswith("/o")] == ["GET /storage/v1/b/images/o"]
    assert only(check_data(Visit(target="vertex", data="gs://images/trees/"))).status == "failed"


def _looked(visit: Visit) -> Any:
    from pipelines.doctor.examine import Check, examine

    return list(examine(visit, [Check("store", check_store, frozenset({visit.target}), "")]))
