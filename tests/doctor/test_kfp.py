"""Kubeflow Pipelines answers, refuses or is silent: the doctor's words for each."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.doctor.examine import Check, examine
from pipelines.doctor.finding import Finding
from pipelines.doctor.kfp import check_kfp
from pipelines.doctor.visit import Visit
from pipelines.submission.kubeflow.connection import read_connection
from tests.doctor.conftest import only
from tests.kubeflow.fake_kfp import FakeKfp, as_page, redirect, serving
from tests.kubeflow.gates import always, tokens
from tests.rollout.web import unused_port

CHECK = Check("kfp", check_kfp, frozenset({"kubeflow"}), "")
TOKEN = "secret-token-1234"


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No connection and no cluster of this machine counts."""
    for name in [*os.environ]:
        if name.startswith(("DUAL_KFP_", "KUBERNETES_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))


@pytest.fixture
def kfp() -> Iterator[FakeKfp]:
    fake = FakeKfp()
    with serving(fake.answer) as fake.url:
        yield fake


def look(host: str, *, seconds: float = 10, **flags: Any) -> Finding:
    connection = read_connection(flags={"host": host, **flags})
    return only(list(examine(Visit(target="kubeflow", connection=connection, seconds=seconds), [CHECK])))


def test_it_answers(kfp: FakeKfp) -> None:
    found = look(kfp.url)
    assert (found.status, found.found) == ("ok", f"{kfp.url} answers, single-user, as no credentials; 0 runs")


def test_it_knows_this_identity(kfp: FakeKfp, monkeypatch: pytest.MonkeyPatch) -> None:
    kfp.guard = tokens(TOKEN)
    refused = look(kfp.url)
    assert (refused.status, "DUAL_KFP_TOKEN" in refused.fix) == ("failed", True), refused
    monkeypatch.setenv("DUAL_KFP_TOKEN", TOKEN)
    found = look(kfp.url)
    assert (found.status, TOKEN in repr(found)) == ("ok", False)


def test_a_login_page_is_told_as_one(kfp: FakeKfp) -> None:
    kfp.guard = always(redirect("https://kubeflow.example.com/dex/auth?state=secret-state"))
    found = look(kfp.url)
    assert (found.status, "login page" in found.found, "secret-state" in repr(found)) == ("failed", True, False)


def test_something_else_answers(kfp: FakeKfp) -> None:
    kfp.guard = always(as_page("<html><title>Welcome to nginx</title></html>"))
    found = look(kfp.url)
    assert (found.status, "Welcome to nginx" in found.found) == ("failed", True), found


def test_nobody_answers() -> None:
    found = look(f"http://127.0.0.1:{unused_port()}")
    assert (found.status, "refused" in found.found) == ("failed", True), found


def test_without_an_address_a_port_forward_needs_a_cluster() -> None:
    found = look("port-forward")
    assert (found.status, "kubeconfig" in found.found or "cluster" in found.found) == ("failed", True), found


def test_a_namespace_is_asked_for_where_there_are_several_users(kfp: FakeKfp) -> None:
    kfp.state.multi_user = True
    found = look(kfp.url)
    assert (found.status, "multi-user" in found.found) == ("failed", True), found
