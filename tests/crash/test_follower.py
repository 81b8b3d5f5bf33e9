"""A follower: it never disturbs a living process, and does what is asked, abandoned or overdue when there is none."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import DualError
from serving.rollout.cluster import actions
from serving.rollout.cluster.api import Api
from serving.rollout.cluster.follow import Follower, Stopped
from serving.rollout.cluster.names import ACTION
from serving.rollout.cluster.settings import ClusterSettings
from tests.crash.fault_proxy import FaultProxy
from tests.crash.followers import ALIVE_WITHIN, make_follower, until
from tests.crash.stage import Stage
from tests.crash.test_pair import Installation
from tests.release_pieces import make_store

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


class Followed(Installation):
    """An installation whose plans leave dead processes little time, with the operators' plan in the cluster."""

    def settings(self, **plan: Any) -> ClusterSettings:
        return super().settings(**{"alive_within": ALIVE_WITHIN, **plan})

    def keep_plan(self) -> None:
        """Put the plan where an undo finds it."""
        plan = self.settings().plan
        assert plan is not None
        body = {"settings.yaml": plan.model_dump_json()}
        self.stage.api.create("ConfigMap", {"metadata": {"name": "classifier-rollout-settings"}, "data": body})

    def follower(self, **how: Any) -> Follower:
        # Its own: what it does at each call is not everybody's.
        return make_follower(self.store, Api(self.stage.api._client, self.stage.api.namespace, patience=5), self.said.append, **how)

    def follow(self, **how: Any) -> str:
        """Let a follower do what is due; what it said."""
        before = len(self.said)
        self.follower(**how).run(once=True)
        return "\n".join(self.said[before:])

    def ask(self, action: str) -> None:
        self.stage.ask(action)()

    def asked(self) -> str:
        """The annotation now; empty without one."""
        return (self.stage.api.get("ConfigMap", "classifier-rollout")["metadata"].get("annotations") or {}).get(ACTION, "")

    def events(self) -> list[str]:
        """What the cluster's Events say, and by which reason."""
        return [f"{each['type']} {each['reason']}: {each['message']}" for each in self.stage.api.list("Event", "")]


@pytest.fixture
def followed(empty_stage: Stage, tmp_path: Path, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Followed:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setattr("serving.rollout.cluster.due.UNHELD_WITHIN", 0.3)
    store, releases = make_store(tmp_path, 3)
    made = Followed(empty_stage, store, [release.id for release in releases])
    made.keep_plan()
    return made


@contextmanager
def going_on(follower: Follower) -> Iterator[threading.Thread]:
    """A follower in a thread, for as long as the block runs."""
    ended = threading.Event()

    def pause(seconds: float) -> None:
        if ended.wait(min(seconds, 0.2)):
            raise Stopped

    def beat() -> None:
        if ended.is_set():
            raise Stopped

    follower.pause, follower.api.asking = pause, beat
    thread = threading.Thread(target=follower.run, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        ended.set()


# --- after the end ----------------------------------------------------------------------------------------------------------------


def test_an_undo_by_annotation_after_the_end_takes_both_halves_back(followed: Followed) -> None:
    for number in (0, 1, 2):
        followed.ship(number)
    followed.ask("undo")
    said = followed.follow()
    assert followed.pair() == (1, 1)
    assert followed.stage.state().phase == "rolled_back"
    assert followed.asked() == ""
    assert "undo was asked for by annotation: both halves go back" in said
    assert any("RolloutRolledBack" in event for event in followed.events())
    # Each annotation is one undo, and none is none.
    followed.follow()
    assert followed.pair() == (1, 1)
    followed.ask("undo")
    followed.follow()
    assert followed.pair() == (0, 0)
    followed.ask("undo")
    said = followed.follow()
    assert followed.pair() == (0, 0)
    assert "there is no release before the promoted one: nothing to go back to" in said
    assert followed.asked() == ""
    assert any("undo was asked for, and can't be done" in event for event in followed.events())


@pytest.mark.parametrize("action", ["promote", "pause", "resume", "abort", "Undo", "x" * 5000])
def test_what_means_nothing_after_the_end_is_said_and_taken_away(followed: Followed, action: str) -> None:
    followed.ship(0)
    followed.ship(1)
    followed.ask(action)
    said = followed.follow()
    text = f"{action[:40]} was asked for, and means nothing when no rollout is in progress (the last one is promoted): nothing was done"
    assert f"promoted: {text}" in said
    assert followed.asked() == ""
    assert followed.pair() == (1, 1)
    assert followed.stage.state().events[-1].text == text
    assert any(text in event for event in followed.events())


def test_where_nothing_is_due_nothing_is_written(followed: Followed) -> None:
    assert "there never was a rollout" in followed.follow()
    followed.ship(0)
    before, lease = followed.versions(), followed.stage.api.get("Lease", "classifier-rollout")
    for _ in range(2):
        follower = followed.follower()
        follower.run(once=True)
        assert "is over: promoted" in followed.said[-1]
        assert {verb: count for verb, count in follower.api.calls.items() if count} == {"GET": 1}
    assert followed.versions() == before
    assert followed.stage.api.get("Lease", "classifier-rollout") == lease


def test_a_state_that_is_malformed_is_reported_and_left(followed: Followed) -> None:
    followed.ship(0)
    followed.stage.edit("ConfigMap", "classifier-rollout", ("data", "state.json"), "{}")
    with pytest.raises(DualError, match="the rollout's state is malformed"):
        followed.follow()


# --- abandoned --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["prepare", "validate_preview", "promote", "post_analysis", "drain"])
def test_a_rollout_that_nobody_runs_is_brought_to_its_end(followed: Followed, phase: str) -> None:
    followed.ship(0)
    with shown(followed, 1, phase):
        pass
    said = followed.follow()
    assert "run gone gave no sign of life for" in said
    assert "took over from run gone" in said
    assert followed.stage.state().phase == "promoted"
    assert followed.pair() == (1, 1)


@pytest.mark.parametrize("phase", ["prepare", "validate_preview", "post_analysis", "drain"])
def test_or_taken_back_where_the_plan_says_so(followed: Followed, phase: str) -> None:
    followed.ship(0)
    with shown(followed, 1, phase, if_abandoned="abort"):
        pass
    assert "the plan takes back what was abandoned" in followed.follow()
    assert followed.stage.state().phase == "aborted"
    assert followed.pair() == (0, 0)


@contextmanager
def shown(followed: Followed, number: int, phase: str, **plan: Any) -> Iterator[None]:
    """A rollout that came to a phase, whose process shows that it lives for as long as the block runs."""
    machine = followed.stand(number, phase, **plan)
    with machine.presence.shown():
        yield


@pytest.mark.parametrize("action", ["abort", "undo"])
@pytest.mark.parametrize("phase", ["prepare", "post_analysis", "drain"])
def test_an_abort_of_an_abandoned_rollout(followed: Followed, phase: str, action: str) -> None:
    followed.ship(0)
    with shown(followed, 1, phase):
        followed.ask(action)
    followed.follow()
    state = followed.stage.state()
    assert (state.phase, state.reason) == ("aborted", f"{action} was asked for by an operator")
    assert followed.asked() == ""
    assert followed.pair() == (0, 0)


@pytest.mark.parametrize("action", ["promote", "resume"])
def test_an_abandoned_pause_goes_on_when_somebody_asks(followed: Followed, action: str) -> None:
    followed.ship(0)
    with shown(followed, 1, "paused", gate=True, if_abandoned="abort"):
        followed.ask(action)
    followed.follow()
    assert followed.stage.state().phase == "promoted"
    assert followed.pair() == (1, 1)


def test_a_pause_that_is_taken_over_lasts_until_somebody_asks(followed: Followed) -> None:
    followed.ship(0)
    with shown(followed, 1, "paused", gate=True):
        pass
    with going_on(followed.follower()):
        until(lambda: followed.stage.state().run_id == "follower")
        assert followed.stage.state().phase == "paused"
        followed.ask("pause")
        until(lambda: followed.asked() == "")
        assert followed.stage.state().phase == "paused"
        followed.ask("promote")
        until(lambda: followed.stage.state().is_over())
    assert followed.pair() == (1, 1)


def test_an_undo_whose_process_died_is_completed(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    followed.ship(0)
    followed.ship(1)

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    right = actions.undo_publication
    monkeypatch.setattr(actions, "undo_publication", dies)
    with pytest.raises(KeyboardInterrupt):
        followed.undo()
    assert followed.pair() == (0, 1)
    monkeypatch.setattr(actions, "undo_publication", right)
    followed.follow()
    assert followed.pair() == (0, 0)
    assert followed.stage.state().phase == "rolled_back"


# --- waiting for the publication --------------------------------------------------------------------------------------------------


def roll_out(followed: Followed, number: int, **plan: Any) -> None:
    """What the pipeline's step does, whose publication is another step's."""
    release = followed.releases[number]
    actions.roll_out(followed.store, release, "classifier", followed.settings(**plan), run_id="run-1", say=followed.said.append)
    assert followed.stage.state().phase == "drain"


def test_a_publication_that_is_still_to_come_is_awaited(followed: Followed) -> None:
    followed.ship(0)
    roll_out(followed, 1)
    before = followed.versions()
    assert "is awaited until" in followed.follow()
    assert followed.versions() == before
    actions.publish_release(followed.store, followed.releases[1], run_id="run-1", after=1)
    # Its own run would finish it, but died.
    followed.follow()
    assert followed.stage.state().phase == "promoted"
    assert followed.pair() == (1, 1)


def test_a_pair_that_is_not_published_in_time_goes_back_although_nobody_looks(followed: Followed) -> None:
    followed.ship(0)
    roll_out(followed, 1, publish_within=2.0)
    with going_on(followed.follower()):
        until(lambda: followed.stage.state().phase == "aborted")
    assert "was not published within 2 s" in followed.stage.state().reason
    assert followed.pair() == (0, 0)


@pytest.mark.parametrize(("action", "ends"), [("abort", "aborted"), ("undo", "aborted"), ("promote", "drain")])
def test_actions_while_the_publication_is_awaited(followed: Followed, action: str, ends: str) -> None:
    followed.ship(0)
    roll_out(followed, 1)
    followed.ask(action)
    said = followed.follow()
    assert followed.asked() == ""
    state = followed.stage.state()
    assert state.phase == ends
    if ends == "drain":
        assert "means nothing while the publication is awaited" in said
        # The step that publishes finds its own rollout.
        assert (state.run_id, state.epoch) == ("run-1", 2)
    else:
        assert followed.pair() == (0, 0)


def test_a_publication_in_the_moment_of_its_deadline_leaves_no_half(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    followed.ship(0)
    roll_out(followed, 1, publish_within=1.0)
    follower = followed.follower()
    until(lambda: follower.look().deed == "end_drain")
    right: Callable[..., Any] = actions.Machine._abort

    def late(self: Any, *args: Any) -> None:
        actions.publish_release(followed.store, followed.releases[1], run_id="run-1", after=1)
        right(self, *args)

    monkeypatch.setattr(actions.Machine, "_abort", late)
    said = followed.follow()
    assert "both halves went back" in said
    assert followed.pair() == (0, 0)


# --- living processes -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def proxy(followed: Followed) -> Iterator[FaultProxy]:
    """The way of a follower, so that what it writes is counted."""
    with FaultProxy(followed.stage.api) as running:
        yield running


@contextmanager
def busy(act: Callable[[], object]) -> Iterator[threading.Thread]:
    """A process that runs a rollout."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    yield thread
    thread.join(60)
    assert not thread.is_alive()


def writes(proxy: FaultProxy) -> list[str]:
    return [f"{call.verb} {call.path}" for call in proxy.calls if call.is_write()]


def test_nothing_is_written_while_a_process_runs_a_rollout(followed: Followed, proxy: FaultProxy) -> None:
    followed.ship(0)
    follower = make_follower(followed.store, proxy.api(followed.stage.api.namespace), followed.said.append, resync=0.3)
    with going_on(follower), busy(lambda: followed.ship(1, gate=True)):
        until(lambda: followed.stage.state().phase == "paused")
        # Longer than a dead one would be waited for.
        lease = followed.stage.api.get("Lease", "classifier-rollout")["metadata"]["resourceVersion"]
        until(lambda: int(followed.stage.api.get("Lease", "classifier-rollout")["metadata"]["resourceVersion"]) > int(lease) + 5)
        looked = len(proxy.calls)
        followed.ask("promote")
        until(lambda: followed.stage.state().is_over())
        until(lambda: any("is over: promoted" in line for line in followed.said))
    assert looked > 5
    assert writes(proxy) == []
    assert followed.pair() == (1, 1)
    assert followed.stage.state().run_id == "r"


def test_a_process_that_measures_for_long_is_no_dead_one(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    followed.ship(0)
    with shown(followed, 1, "validate_preview"):
        follower = followed.follower(resync=0.2)
        with going_on(follower):
            until(lambda: follower._vigil.moved, 10)
            api, names, _ = actions.reader("classifier", followed.settings())
            monkeypatch.setattr(actions, "_LOOK", 0.05)
            # The command line waits for it too, but not for ever: it is a person who asks.
            assert not actions.request(api, names, "promote", within=0.1)
        assert followed.stage.state().run_id == "gone"


def test_a_short_rollout_shows_itself_once(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    followed.ship(0)
    first = followed.stage.api.get("Lease", "classifier-rollout")
    assert (first["spec"]["holderIdentity"], first["spec"]["leaseDurationSeconds"]) == ("r", 2)
    sent: list[Any] = []
    right = Api._open

    def counted(self: Api, verb: str, kind: str, *rest: Any) -> Any:
        sent.extend([verb] if kind == "Lease" and verb != "GET" else [])
        return right(self, verb, kind, *rest)

    monkeypatch.setattr(Api, "_open", counted)
    followed.ship(1, run_id="second", alive_within=60)
    assert sent == ["PUT"]
    second = followed.stage.api.get("Lease", "classifier-rollout")
    assert second["spec"]["holderIdentity"] == "second"
    assert second["metadata"]["annotations"]["dual.dev/epoch"] == str(followed.stage.state().epoch)


def test_who_was_overtaken_leaves_the_lease_alone(followed: Followed) -> None:
    followed.ship(0)
    machine = followed.stand(1, "validate_preview")
    with machine.presence.shown():
        go_on = actions.go_on(followed.store, "classifier", followed.settings(), run_id="newer", say=followed.said.append)
        assert go_on.phase == "promoted"
        version = followed.stage.api.get("Lease", "classifier-rollout")["metadata"]["resourceVersion"]
        machine.presence._write("gone")
    lease = followed.stage.api.get("Lease", "classifier-rollout")
    assert (lease["spec"]["holderIdentity"], lease["metadata"]["resourceVersion"]) == ("newer", version)


def test_an_undo_in_the_drain_is_the_running_processes_own(followed: Followed, proxy: FaultProxy) -> None:
    followed.ship(0)
    follower = make_follower(followed.store, proxy.api(followed.stage.api.namespace), followed.said.append, resync=0.3)
    with going_on(follower), busy(lambda: followed.ship(1, scale_down_delay=5.0)):
        until(lambda: followed.pair() == (1, 1))
        followed.ask("undo")
        until(lambda: followed.stage.state().phase == "rolled_back")
    assert writes(proxy) == []
    assert followed.pair() == (0, 0)
    assert followed.asked() == ""


def test_an_undo_in_the_last_moment_of_a_rollout_is_kept_for_the_follower(followed: Followed) -> None:
    followed.ship(0)
    right = actions.Machine._finish

    def late(self: Any, *args: Any) -> None:
        followed.ask("undo")
        right(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(actions.Machine, "_finish", late)
        followed.ship(1)
    assert (followed.stage.state().phase, followed.asked()) == ("promoted", "undo")
    followed.follow()
    assert followed.pair() == (0, 0)


# --- what is in the way -----------------------------------------------------------------------------------------------------------


def test_without_a_key_to_sign_with_nothing_is_moved(followed: Followed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    followed.ship(0)
    followed.ship(1)
    followed.ask("undo")
    monkeypatch.setenv("DUAL_PUBLISH_MOBILE__SIGNING", "required")
    monkeypatch.setenv("DUAL_KEYS", str(tmp_path / "nobody"))
    before = followed.stage.api.get("Service", "classifier")["metadata"]["resourceVersion"]
    said = followed.follow()
    assert "undo was asked for, and can't be done" in said
    assert followed.stage.api.get("Service", "classifier")["metadata"]["resourceVersion"] == before
    assert (followed.pair(), followed.asked()) == ((1, 1), "")


def test_a_store_that_is_away_is_said_and_waited_for(followed: Followed) -> None:
    followed.ship(0)
    followed.ship(1)
    folder = Path(followed.store.uri.removeprefix("file://"))
    away = folder.with_name("away")
    folder.rename(away)
    followed.ask("undo")
    with going_on(followed.follower()):
        until(lambda: any("the channel is not there, but it had 1 before" in line for line in followed.said))
        until(lambda: any("Warning RolloutFollower" in event for event in followed.events()))
        before = followed.versions()
        assert not folder.exists()
        assert (followed.versions(), followed.asked()) == (before, "undo")
        away.rename(folder)
        until(lambda: followed.pair() == (0, 0))
        until(lambda: followed.stage.state().is_over())
    # A line for each thing that is wrong, not for each look at it.
    assert sum("but it had" in line for line in followed.said) == 1


def test_a_store_that_goes_away_between_the_halves(followed: Followed) -> None:
    followed.ship(0)
    followed.ship(1)
    folder = Path(followed.store.uri.removeprefix("file://"))
    away, gone = folder.with_name("away"), threading.Event()

    def say(text: str) -> None:
        followed.said.append(text)
        # The live traffic has moved, the channel has not.
        if text.startswith("drain:") and not gone.is_set():
            gone.set()
            folder.rename(away)

    followed.ask("undo")
    follower = followed.follower()
    follower.say = say
    with going_on(follower):
        until(lambda: any("but it had 2 before" in line for line in followed.said))
        assert followed.stage.state().phase == "drain"
        away.rename(folder)
        until(lambda: followed.stage.state().is_over())
    assert followed.pair() == (0, 0)
    assert followed.stage.state().phase == "rolled_back"


def test_a_publication_whose_answer_was_lost_is_one(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    followed.ship(0)
    right: Callable[..., Any] = actions.publish_release

    def lost(*args: Any, **how: Any) -> None:
        right(*args, **how)
        raise DualError("the connection broke", where="store")

    monkeypatch.setattr(actions, "publish_release", lost)
    followed.ship(1)
    assert followed.pair() == (1, 1)
    assert followed.stage.state().phase == "promoted"


def test_an_api_server_that_is_away_is_said_and_waited_for(followed: Followed, proxy: FaultProxy) -> None:
    followed.ship(0)
    followed.ship(1)
    api = proxy.api(followed.stage.api.namespace, patience=0.2)
    with going_on(make_follower(followed.store, api, followed.said.append)):
        until(lambda: bool(proxy.watching))
        proxy.fault = lambda _: "dropped"
        proxy.cut_watches()
        until(lambda: any("the API server could not GET it for 0.2 s" in line for line in followed.said))
        followed.ask("undo")
        proxy.fault = lambda _: ""
        until(lambda: followed.pair() == (0, 0))
        until(lambda: followed.stage.state().is_over())


def test_an_api_server_that_was_away_for_everybody_makes_nobody_dead(followed: Followed, proxy: FaultProxy) -> None:
    followed.ship(0)
    machine = followed.stand(1, "validate_preview")
    with machine.presence.shown():
        follower = make_follower(followed.store, proxy.api(followed.stage.api.namespace, patience=0.2), followed.said.append, resync=0.2)
        with going_on(follower):
            until(lambda: follower._vigil.moved)
            proxy.fault = lambda _: "dropped"
            proxy.cut_watches()
            # The other one can't renew in this time either.
            with machine.presence._lock:
                until(lambda: any("could not GET" in line for line in followed.said))
                threading.Event().wait(ALIVE_WITHIN)
                looked = len(proxy.calls)
                proxy.fault = lambda _: ""
                until(lambda: any(not call.is_watch() and call.number > looked for call in proxy.calls))
            threading.Event().wait(ALIVE_WITHIN)
        assert writes(proxy) == []
    assert followed.stage.state().run_id == "gone"


def test_the_way_of_a_person_outside_stays_noted(followed: Followed) -> None:
    from serving.rollout.cluster import whereabouts

    followed.ship(0)
    outside = followed.settings().model_copy(update={"context": "laptop", "access": "proxy"})
    whereabouts.note(followed.store, followed.releases[1], "classifier", followed.stage.api.namespace, outside)
    with shown(followed, 1, "post_analysis"):
        pass
    followed.follow()
    found = whereabouts.recall(followed.store, followed.releases[1])
    assert found is not None
    assert (found.context, found.access) == ("laptop", "proxy")
