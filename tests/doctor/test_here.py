"""This machine: Python, packages, disk, memory, clock, data."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.core.machine import Machine
from pipelines.doctor import clock, machine, python
from pipelines.doctor.data import check_data
from pipelines.doctor.visit import Visit
from tests.doctor.conftest import answer_head, only
from tests.rollout.web import Reply, WebServer, unused_port

HERE = Visit(target="local")


def test_this_python_is_fine_and_another_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(python.check_python(HERE)).status == "ok"
    monkeypatch.setattr(python.sys, "version_info", (3, 10, 4))
    found = only(python.check_python(HERE))
    assert (found.status, "3.10.4" in found.found, "make PYTHON=" in found.fix) == ("failed", True, True)


def test_the_extras_of_the_target_are_installed() -> None:
    assert only(python.check_extras(HERE)).status == "ok"


def test_a_missing_package_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = metadata.version

    def without_kfp(name: str) -> str:
        if name == "kfp":
            raise metadata.PackageNotFoundError(name)
        return "0.1" if name == "numpy" else whole(name)

    monkeypatch.setattr(python.metadata, "version", without_kfp)
    found = only(python.check_extras(HERE))
    assert found.status == "failed"
    assert "kfp (not installed)" in found.found
    assert "numpy 0.1 (needs >=2.1)" in found.found
    assert found.fix.startswith("uv sync --extra pipeline")


def test_a_package_of_another_extra_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = metadata.version

    def without_starlette(name: str) -> str:
        if name == "starlette":
            raise metadata.PackageNotFoundError(name)
        return whole(name)

    monkeypatch.setattr(python.metadata, "version", without_starlette)
    assert "starlette" in only(python.check_extras(HERE)).found
    assert "starlette" not in only(python.check_extras(Visit(target="kubeflow"))).found


def test_a_version_that_is_not_the_locks_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lock = tmp_path / "uv.lock"
    lock.write_text('[[package]]\nname = "numpy"\nversion = "0.0.1"\n[[package]]\nname = "nobody-has-this"\nversion = "1"\n')
    monkeypatch.setattr(python, "lock_file", lambda: lock)
    found = only(python.check_lock(HERE))
    assert found.status == "warning"
    assert f"1 packages differ from uv.lock: numpy {metadata.version('numpy')} (lock: 0.0.1)" in found.found
    assert found.fix == "uv sync --frozen --all-extras"


def test_the_checkouts_own_lock_is_read() -> None:
    lock = python.lock_file()
    assert lock is not None
    assert metadata.version("numpy") in python.locked_versions(lock)["numpy"]


@pytest.mark.parametrize(("free", "status"), [(0.5, "failed"), (3, "warning"), (50, "ok")])
def test_a_full_disk_fails_a_filling_one_warns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: float, status: str) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=free * 2**30))
    found = machine.check_disk(Visit(target="local", store=str(tmp_path / "not" / "yet" / "there")))
    assert [(each.check, each.status) for each in found] == [("disk (temporary files)", status), ("disk (store)", status)]
    assert str(tmp_path) in found[1].found


@pytest.mark.parametrize(("free", "status"), [(1.5, "failed"), (3.0, "warning"), (12.0, "ok")])
def test_little_memory_is_told(monkeypatch: pytest.MonkeyPatch, free: float, status: str) -> None:
    monkeypatch.setattr(machine, "_available", lambda: free)
    monkeypatch.setattr(machine, "this_machine", lambda: Machine(cpus=4, memory_gib=16, accelerators={"NVIDIA L4": 1}))
    found = only(machine.check_memory(HERE))
    assert (found.status, "4 cores, 1 x NVIDIA L4" in found.found) == (status, True)


def test_a_containers_limit_counts_however_much_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_available", lambda: 100.0)
    monkeypatch.setattr(machine, "this_machine", lambda: Machine(cpus=4, memory_gib=1))
    assert only(machine.check_memory(HERE)).status == "failed"


@contextmanager
def server_ahead(seconds: float) -> Iterator[WebServer]:
    """A server whose clock is `seconds` ahead of ours."""
    with WebServer(lambda _: Reply("")) as server:
        handler: Any = server._server.RequestHandlerClass
        handler.date_time_string = lambda *_: formatdate(time.time() + seconds, usegmt=True)
        yield server


@pytest.mark.parametrize(
    ("ahead", "status", "words"),
    [(0, "ok", "agrees with the store"), (-20, "warning", "20 s ahead of the store"), (3600, "failed", "3600 s behind the store")],
)
def test_a_clock_that_is_wrong_is_told(ahead: float, status: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with server_ahead(ahead) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        found = only(clock.check_clock(Visit(target="local", store="s3://bucket/x")))
    # Dates have whole seconds.
    assert (found.status, words.partition(" ")[2] in found.found) == (status, True), found
    assert status == "ok" or abs(int(found.found.split()[0]) - abs(ahead)) <= 1


def test_the_stores_clock_is_asked_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    with answer_head(WebServer(lambda _: Reply(""))) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        found = only(clock.check_clock(Visit(target="local", store="gs://bucket/x")))
    assert (found.status, found.found) == ("ok", "agrees with the store")
    assert [asked.method for asked in server.asked] == ["HEAD"]


def test_without_anybody_to_ask_the_clock_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(clock.check_clock(HERE)).status == "skipped"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{unused_port()}")
    assert only(clock.check_clock(Visit(target="local", store="gs://bucket/x"))).status == "skipped"


def test_data_is_looked_for_where_steps_can_reach_it(tmp_path: Path) -> None:
    assert only(check_data(Visit(target="local", data=str(tmp_path)))).status == "ok"
    assert only(check_data(Visit(target="local", data="drawn"))).status == "ok"
    missing = only(check_data(Visit(target="local", data=str(tmp_path / "nowhere"))))
    assert (missing.status, "there is no" in missing.found) == ("failed", True)
    unreachable = only(check_data(Visit(target="kubeflow", data=str(tmp_path))))
    assert (unreachable.status, "pods can't see" in unreachable.found) == ("failed", True)


def test_data_on_the_web_is_asked_for_and_not_fetched() -> None:
    with answer_head(WebServer(lambda asked: Reply("x", 404 if "missing" in asked.path else 200))) as server:
        assert only(check_data(Visit(target="vertex", data=f"{server.url}/flowers.tgz"))).status == "ok"
        assert "404" in only(check_data(Visit(target="vertex", data=f"{server.url}/missing.tgz"))).found
    assert {asked.method for asked in server.asked} == {"HEAD"}
    gone = only(check_data(Visit(target="vertex", data=f"http://127.0.0.1:{unused_port()}/x")))
    assert (gone.status, "nothing listens there" in gone.found) == ("failed", True)
