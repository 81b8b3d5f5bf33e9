"""What people and steps ask for, with a store: both halves of a pair move, or neither, whatever comes in between."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from components.core.channel import read_channel
from components.core.errors import ConflictError, DataError, RolloutError, UsageError
from components.core.stores import Store
from serving.rollout.cluster import actions
from serving.rollout.cluster.begin import begin
from serving.rollout.cluster.machine import Machine
from serving.rollout.cluster.names import NAME
from serving.rollout.cluster.objects import live_of
from serving.rollout.cluster.settings import ClusterSettings
from serving.rollout.cluster.site import open_site, release_digest
from serving.rollout.cluster.state import ClusterRollout
from tests.crash.cluster_site import plan_of
from tests.crash.stage import Stage
from tests.release_pieces import make_store

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
KINDS = ("Deployment", "Service", "ConfigMap", "HorizontalPodAutoscaler", "Pod")


@dataclass
class Installation:
    """A store with three releases, and a namespace that nothing was rolled out to."""

    stage: Stage
    store: Store
    releases: list[str]
    said: list[str] = field(default_factory=list)

    def settings(self, **plan: Any) -> ClusterSettings:
        """Nobody asks pods here: there are none."""
        quick = plan_of(**{"strategy": "blue-green", "preview": False, "post_count": 0, **plan})
        return ClusterSettings(namespace=self.stage.api.namespace, plan=quick, patience=5)

    def ship(self, number: int, *, run_id: str = "r", **plan: Any) -> ClusterRollout:
        """`dual rollout start`."""
        return actions.ship(self.store, self.releases[number], "classifier", self.settings(**plan), run_id=run_id, say=self.said.append)

    def undo(self, **plan: Any) -> ClusterRollout | None:
        """`dual rollout undo`."""
        how: dict[str, Any] = {"run_id": "u", "reason": "a test", "say": self.said.append}
        return actions.undo(self.store, "classifier", self.settings(**plan), **how)

    def abort(self, **only: str) -> ClusterRollout | None:
        """`dual rollout abort` where no process runs."""
        how: dict[str, Any] = {"run_id": "x", "reason": "a test", "say": self.said.append, **only}
        return actions.abort(self.store, "classifier", self.settings(), **how)

    def stand(self, number: int, phase: str, *, run_id: str = "gone", **plan: Any) -> Machine:
        """A rollout whose process died when it had come to a phase."""
        release = self.releases[number]
        with open_site(self.store, release, "classifier", self.settings(**plan), self.said.append) as (site, chosen):
            machine: Machine = begin(site, release, release_digest(self.store, release), chosen, run_id=run_id)
            machine.objects.claim()
            while machine.state.phase != phase:
                getattr(machine, f"_{machine.state.phase}")()
            return machine

    def pair(self) -> tuple[int | None, int | None]:
        """Which release the live Service and the channel have; None before the first."""
        live, channel = live_of(self.stage.api.get("Service", "classifier")), read_channel(self.store)
        assert not live.shared
        cloud = [number for number, release in enumerate(self.releases) if live.stable.startswith(release)]
        return (cloud[0] if cloud else None), (self.releases.index(channel[0].release) if channel else None)

    def versions(self) -> dict[str, str]:
        """Every object's version: what was written differs."""
        found = [each for kind in KINDS for each in self.stage.api.list(kind, f"{NAME}=classifier")]
        return {f"{each['metadata']['uid']}": each["metadata"]["resourceVersion"] for each in found}


@pytest.fixture
def installed(empty_stage: Stage, tmp_path: Path, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    store, releases = make_store(tmp_path, 3)
    return Installation(empty_stage, store, [release.id for release in releases])


# --- ship and undo ----------------------------------------------------------------------------------------------------------------


def test_pairs_are_shipped_and_undone_as_a_whole(installed: Installation) -> None:
    for number in (0, 1, 2):
        installed.ship(number)
        assert installed.pair() == (number, number)
    state = installed.undo()
    assert state is not None
    assert state.phase == "rolled_back"
    assert installed.pair() == (1, 1)
    # Several undos in a row go further back each time.
    installed.undo()
    assert installed.pair() == (0, 0)
    with pytest.raises(UsageError, match="there is no release before the promoted one: nothing to go back to"):
        installed.undo()
    assert installed.pair() == (0, 0)
    installed.ship(2)
    assert installed.pair() == (2, 2)


def test_an_undo_before_anything_was_published(installed: Installation) -> None:
    with pytest.raises(UsageError, match="nothing was published yet"):
        installed.undo()


@pytest.mark.parametrize("phase", ["prepare", "validate_preview", "promote", "post_analysis", "drain"])
def test_an_undo_in_the_middle_of_a_rollout_aborts_it(installed: Installation, phase: str) -> None:
    installed.ship(0)
    installed.stand(1, phase)
    state = installed.undo()
    assert state is not None
    assert (state.phase, state.reason) == ("aborted", "a test")
    assert installed.pair() == (0, 0)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_killed_undo_is_completed_by_another_one(installed: Installation, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    installed.ship(0)
    installed.ship(1)
    right = actions.undo_publication

    def killed(store: Store, reason: str, **how: Any) -> object:
        if moment == "after":
            right(store, reason, **how)
        raise KeyboardInterrupt

    monkeypatch.setattr(actions, "undo_publication", killed)
    with pytest.raises(KeyboardInterrupt):
        installed.undo()
    monkeypatch.setattr(actions, "undo_publication", right)
    assert installed.pair() == (0, 1 if moment == "before" else 0)
    installed.undo()
    assert installed.pair() == (0, 0)
    channel = read_channel(installed.store)
    assert channel is not None
    assert channel[0].sequence == 3


def test_a_publication_that_fails_takes_the_cloud_half_back(installed: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    installed.ship(0)

    def fails(*_: object, **__: object) -> None:
        raise DataError("the .tflite is damaged", where="somewhere")

    monkeypatch.setattr(actions, "publish_release", fails)
    with pytest.raises(DataError, match="damaged"):
        installed.ship(1)
    assert installed.pair() == (0, 0)
    state = installed.stage.state()
    assert state.phase == "aborted"
    assert "the publication failed: somewhere: the .tflite is damaged" in state.reason


@pytest.mark.parametrize("first", [False, True])
def test_an_abort_in_the_moment_of_the_publication_leaves_no_half(
    installed: Installation, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    if not first:
        installed.ship(0)
    right: Callable[..., Any] = actions.publish_release

    def late(*args: Any, **kwargs: Any) -> Any:
        installed.abort()
        return right(*args, **kwargs)

    monkeypatch.setattr(actions, "publish_release", late)
    # A first release has nothing before it: its publication can't be undone, and the next start brings the cloud half there.
    with pytest.raises(
        UsageError if first else RolloutError, match="is the first release" if first else "so both halves went back: a test"
    ):
        installed.ship(1)
    monkeypatch.setattr(actions, "publish_release", right)
    assert installed.pair() == ((None, 1) if first else (0, 0))
    installed.ship(1)
    assert installed.pair() == (1, 1)


def test_a_newer_release_while_an_older_one_drains(installed: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    installed.ship(0)
    right: Callable[..., Any] = actions.publish_release
    released = []

    def and_then_another(store: Store, release: str, **how: Any) -> Any:
        channel = right(store, release, **how)
        if not released:
            released.append(installed.ship(2, run_id="newer"))
        return channel

    monkeypatch.setattr(actions, "publish_release", and_then_another)
    # The older run did what it had to: that somebody else waits for its old pods is no failure.
    installed.ship(1)
    assert installed.pair() == (2, 2)
    assert any("the old pods are another run's to wait for" in line for line in installed.said)


# --- finish, abort and go on ------------------------------------------------------------------------------------------------------


def finish(installed: Installation, number: int, run_id: str) -> ClusterRollout | None:
    settings = installed.settings()
    return actions.finish(installed.store, installed.releases[number], "classifier", settings, run_id=run_id, say=installed.said.append)


def test_finish_waits_only_for_its_own_rollout(installed: Installation) -> None:
    installed.ship(0)
    installed.stand(1, "prepare", run_id="other")
    for number, run_id in ((0, "r"), (0, "other"), (1, "r")):
        finish(installed, number, run_id)
        assert (installed.stage.state().run_id, installed.stage.state().phase) == ("other", "prepare")
    installed.undo()
    installed.ship(0)
    assert installed.pair() == (0, 0)


def test_finish_ends_the_drain_even_if_the_template_changed(installed: Installation) -> None:
    installed.ship(0)
    installed.stand(1, "drain", run_id="r")
    actions.publish_release(installed.store, installed.releases[1], after=1)
    installed.stage.edit("Deployment", "classifier", ("spec", "template", "spec", "containers", "0", "image"), "server:2")
    state = finish(installed, 1, "r")
    assert state is not None
    assert state.phase == "promoted"
    assert installed.pair() == (1, 1)
    assert finish(installed, 1, "r") == installed.stage.state()


def test_abort_is_only_for_what_is_not_published(installed: Installation) -> None:
    assert installed.abort() is None
    installed.ship(0)
    assert installed.abort() is None
    installed.stand(1, "drain")
    assert installed.abort(only_run="another") is None
    actions.publish_release(installed.store, installed.releases[1], after=1)
    with pytest.raises(UsageError, match=r"is published already.*dual rollout undo"):
        installed.abort()
    go_on = actions.go_on(installed.store, "classifier", installed.settings(), run_id="x", say=installed.said.append)
    assert go_on.phase == "promoted"
    assert installed.pair() == (1, 1)


@pytest.mark.parametrize("phase", ["prepare", "post_analysis", "drain"])
def test_a_rollout_without_a_process_goes_on(installed: Installation, phase: str) -> None:
    installed.ship(0)
    installed.stand(1, phase)
    state = actions.go_on(installed.store, "classifier", installed.settings(), run_id="x", say=installed.said.append)
    assert state.phase == "promoted"
    assert installed.pair() == (1, 1)


def test_without_a_rollout_there_is_nothing_to_steer(installed: Installation) -> None:
    api, names, _ = actions.reader("classifier", installed.settings())
    with pytest.raises(UsageError, match="there never was a rollout"):
        actions.request(api, names, "promote")
    installed.ship(0)
    with pytest.raises(UsageError, match=r"no rollout is in progress \(the last one is promoted\)"):
        actions.request(api, names, "promote")


def test_a_request_is_heard_by_the_process_that_runs(installed: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "_LOOK", 0.02)
    installed.ship(0)
    running = threading.Thread(target=lambda: installed.ship(1, gate=True))
    running.start()
    try:
        while installed.stage.state().phase != "paused":
            running.join(0.02)
        api, names, _ = actions.reader("classifier", installed.settings())
        assert actions.request(api, names, "promote")
    finally:
        running.join(30)
    assert installed.pair() == (1, 1)


def test_a_request_that_nobody_hears_stays_for_whoever_takes_over(installed: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "_LOOK", 0.02)
    installed.ship(0)
    installed.stand(1, "validate_preview")
    api, names, _ = actions.reader("classifier", installed.settings())
    assert not actions.request(api, names, "abort", within=0.1)
    with pytest.raises(RolloutError, match="abort was asked for by an operator"):
        actions.go_on(installed.store, "classifier", installed.settings(), run_id="x", say=installed.said.append)
    assert installed.pair() == (0, 0)


def test_two_at_once_one_of_them_wins(installed: Installation) -> None:
    installed.ship(0)
    ends: list[object] = []

    def ship(number: int) -> None:
        try:
            ends.append(installed.ship(number, run_id=f"run-{number}"))
        except (ConflictError, RolloutError) as error:
            ends.append(error)

    threads = [threading.Thread(target=ship, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(ends) == 2
    assert any(isinstance(end, ClusterRollout) for end in ends)
    cloud, channel = installed.pair()
    assert cloud == channel != 0


# --- what only looks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["canary", "blue-green"])
def test_a_plan_changes_nothing(installed: Installation, strategy: str) -> None:
    first = actions.preview_plan("classifier", installed.settings(strategy=strategy))
    assert "canary" not in [phase for phase, _ in first]
    installed.ship(0)
    before = installed.versions()
    rows = actions.preview_plan("classifier", installed.settings(strategy=strategy, preview=True, gate=True))
    assert [phase for phase, _ in rows if phase != "canary"] == [
        "prepare",
        "validate_preview",
        "paused",
        "promote",
        "post_analysis",
        "drain",
    ]
    if strategy == "canary":
        assert ("canary", "25 % asked: 1 candidate pod(s) beside 3, 25.0 % achieved; analysis") in rows
    assert installed.versions() == before


def test_the_operators_plan_is_read_and_a_wrong_one_is_named(installed: Installation) -> None:
    settings = ClusterSettings(namespace=installed.stage.api.namespace)
    labels = {"name": "classifier-rollout-settings", "labels": {NAME: "classifier"}}
    installed.stage.api.create("ConfigMap", {"metadata": labels, "data": {"settings.yaml": "strategy: recreate\ngate: true\n"}})
    assert [phase for phase, _ in actions.preview_plan("classifier", settings)][2] == "paused"
    for text, message in (("steps: [{weight: 100}]", "steps.0.weight"), ("{", "is not YAML")):
        installed.stage.edit("ConfigMap", "classifier-rollout-settings", ("data", "settings.yaml"), text)
        with pytest.raises(UsageError, match=f"ConfigMap .*/classifier-rollout-settings, settings.yaml: .*{message}"):
            actions.ship(installed.store, installed.releases[0], "classifier", settings, run_id="r", say=installed.said.append)
    assert installed.stage.pods() == {}


def test_every_transition_is_an_event_and_says_what_may_be_done(installed: Installation) -> None:
    installed.ship(0, gate=False)
    uid = installed.stage.api.get("Deployment", "classifier")["metadata"]["uid"]
    events = list(installed.stage.api.list("Event", "", fields=f"involvedObject.uid={uid}"))
    reasons = {event["reason"] for event in events}
    assert reasons == {
        "RolloutPrepare",
        "RolloutValidatePreview",
        "RolloutPromote",
        "RolloutPostAnalysis",
        "RolloutDrain",
        "RolloutPromoted",
    }
    namespace = installed.stage.api.namespace
    assert f"  abort:   kubectl -n {namespace} annotate configmap classifier-rollout --overwrite dual.dev/action=abort" in installed.said
    assert f"  undo:    dual rollout undo --store {installed.store.uri} --namespace {namespace}" in installed.said
