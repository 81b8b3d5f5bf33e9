"""`dual rollout` against a real API server: what a person types, and what comes back."""

import functools
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from components.core.stores import Store
from pipelines.cli import cli
from serving.rollout.cluster import actions
from serving.rollout.cluster.api import Api
from serving.rollout.cluster.names import Names
from serving.rollout.cluster.state import Book
from tests.crash.cluster_site import Controller
from tests.crash.victims import Order
from tests.release_pieces import make_store

pytestmark = pytest.mark.cluster
# Without kubelets there are no pods to ask: what is asked of pods is tested elsewhere.
PLAN = {"strategy": "blue-green", "preview": False, "post_count": 0, "poll_seconds": 0.05, "scale_down_delay": 0}


class Site:
    """A namespace, a store with two releases, and the command."""

    def __init__(self, api: Api, store: Store, releases: list[str], folder: Path) -> None:
        self.api, self.store, self.releases, self._folder = api, store, releases, folder

    def dual(self, *arguments: str, **plan: object) -> Result:
        words = ["rollout", *arguments, "--namespace", self.api.namespace, "--store", self.store.uri.removeprefix("file://")]
        if arguments[0] in ("start", "plan"):
            path = self._folder / "plan.yaml"
            path.write_text(yaml.safe_dump(PLAN | plan))
            words += ["--plan", str(path)]
        if arguments[0] in ("plan", "history"):
            words = [word for word in words if word not in ("--store", self.store.uri.removeprefix("file://"))]
        return CliRunner().invoke(cli, words)

    def phase(self) -> str:
        state = Book(self.api, Names(namespace=self.api.namespace)).read()
        return state.phase if state else ""

    def wait_for(self, phase: str) -> None:
        deadline = time.monotonic() + 30
        while self.phase() != phase:
            assert time.monotonic() < deadline, f"{phase} never came; it is {self.phase()}"
            time.sleep(0.02)


@pytest.fixture
def site(
    bare: Callable[[], Order], controller: Controller, api_of: Callable[[str], Api], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Site:
    del controller
    order = bare()
    monkeypatch.setenv("KUBECONFIG", order.kubeconfig)
    store, releases = make_store(tmp_path, 2)
    return Site(api_of(order.namespace), store, [release.id for release in releases], tmp_path)


def test_start_status_history_plan(site: Site) -> None:
    assert "there never was a rollout" in site.dual("status").output
    plan = site.dual("plan", strategy="canary")
    assert plan.exit_code == 0
    assert [line.split()[0] for line in plan.output.splitlines()] == ["prepare", "promote", "post_analysis", "drain"]
    started = site.dual("start", site.releases[0])
    assert started.exit_code == 0, started.output
    assert "promoted: release" in started.output
    status = site.dual("status")
    assert f"rollout of {site.releases[0]}: promoted" in status.output
    assert "undo:" in status.output
    assert json.loads(site.dual("status", "--json").output)["phase"] == "promoted"
    assert site.releases[0] in site.dual("history").output
    steps = site.dual("plan", "--json", strategy="canary")
    assert [json.loads(steps.output)[n]["phase"] for n in (1, 2)] == ["canary", "canary"]


def test_the_same_release_again_changes_nothing(site: Site) -> None:
    site.dual("start", site.releases[0])
    before = site.api.get("ConfigMap", "classifier-rollout")["metadata"]["resourceVersion"]
    again = site.dual("start", site.releases[0])
    assert again.exit_code == 0
    assert "wrote 0 times" in again.output
    assert site.api.get("ConfigMap", "classifier-rollout")["metadata"]["resourceVersion"] == before


def test_promote_is_taken_up_by_the_process_that_waits(site: Site) -> None:
    site.dual("start", site.releases[0])
    results: list[Result] = []
    waiting = threading.Thread(target=lambda: results.append(site.dual("start", site.releases[1], gate=True)))
    waiting.start()
    site.wait_for("paused")
    promoted = site.dual("promote")
    waiting.join(30)
    assert promoted.exit_code == 0, promoted.output
    assert results[0].exit_code == 0, results[0].output
    assert site.phase() == "promoted"


def test_abort_and_undo_of_a_rollout_that_nobody_runs(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "request", functools.partial(actions.request, within=0.1))
    settings = {"metadata": {"name": "classifier-rollout-settings"}, "data": {"settings.yaml": yaml.safe_dump(PLAN)}}
    site.api.create("ConfigMap", settings)
    site.dual("start", site.releases[0])
    site.dual("start", site.releases[1])
    undone = site.dual("undo", "--reason", "it barks")
    assert undone.exit_code == 0, undone.output
    assert "rolled_back" in undone.output
    assert site.releases[0] in site.dual("status").output
    nothing = site.dual("abort")
    assert nothing.exit_code == 2
    assert "no rollout is in progress" in nothing.output


def test_dual_undo_takes_both_halves_back(site: Site) -> None:
    settings = {"metadata": {"name": "classifier-rollout-settings"}, "data": {"settings.yaml": yaml.safe_dump(PLAN)}}
    site.api.create("ConfigMap", settings)
    for release in site.releases:
        assert site.dual("start", release).exit_code == 0
    undone = CliRunner().invoke(cli, ["undo", "--store", site.store.uri.removeprefix("file://")])
    assert undone.exit_code == 0, undone.output
    assert f"stable is release {site.releases[0]}" in undone.output
    assert site.api.get("Service", "classifier")["spec"]["selector"]["dual.dev/revision"].startswith(site.releases[0])


def test_a_release_that_is_not_there(site: Site) -> None:
    missing = site.dual("start", "0" * 12)
    assert missing.exit_code == 4
    assert "there is no release" in missing.output


def test_a_plan_that_is_wrong(site: Site) -> None:
    wrong = site.dual("start", site.releases[0], strategy="yellow-green")
    assert wrong.exit_code == 2
    assert "strategy" in wrong.output
