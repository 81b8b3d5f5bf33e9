"""A follower beside living processes, which it leaves alone, and with a store, a key or an API server that is not there."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import ConflictError, DualError, StaleError
from components.publish_mobile.publication import undo_publication
from serving.rollout.cluster import actions, whereabouts
from serving.rollout.cluster.api import Api
from serving.rollout.cluster.due import Due
from tests.crash.fault_proxy import Call, FaultProxy
from tests.crash.followers import ALIVE_WITHIN, Followed, going_on, make_follower, shown, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


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


# --- living processes -------------------------------------------------------------------------------------------------------------


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
    follower, looks = followed.follower(), list[Due]()
    look = follower.look

    def counted() -> Due:
        looks.append(look())
        return looks[-1]

    follower.look = counted
    with going_on(follower):
        until(lambda: any("the channel is not there, but it had 1 before" in line for line in followed.said))
        until(lambda: any("Warning RolloutFollower" in event for event in followed.events()))
        until(lambda: len(looks) > 4)
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


def has_looked(calls: list[Call]) -> bool:
    """Whether a look is complete: the Lease was read, and then somebody waits again, or acts."""
    read = [call.number for call in calls if "/leases/" in call.path and not call.is_write()]
    return bool(read) and any(call.is_watch() or call.is_write() for call in calls if call.number > read[0])


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
                until(lambda: has_looked(proxy.calls[looked:]))
            threading.Event().wait(ALIVE_WITHIN)
        assert writes(proxy) == []
    assert followed.stage.state().run_id == "gone"


def test_the_way_of_a_person_outside_stays_noted(followed: Followed) -> None:
    followed.ship(0)
    outside = followed.settings().model_copy(update={"context": "laptop", "access": "proxy"})
    whereabouts.note(followed.store, followed.releases[1], "classifier", followed.stage.api.namespace, outside)
    with shown(followed, 1, "post_analysis"):
        pass
    followed.follow()
    found = whereabouts.recall(followed.store, followed.releases[1])
    assert found is not None
    assert (found.context, found.access) == ("laptop", "proxy")


# --- what somebody else does ------------------------------------------------------------------------------------------------------


def test_what_is_not_asked_for_any_more_is_not_done(followed: Followed) -> None:
    for number in (0, 1, 2):
        followed.ship(number)
    state, how = followed.stage.state(), {"run_id": "late", "say": followed.said.append}
    undo: dict[str, Any] = {**how, "reason": "a test"}
    before = followed.versions()
    with pytest.raises(ConflictError, match="nobody asks for undo any more"):
        actions.undo(followed.store, "classifier", followed.settings(), asked=(state.epoch, "undo"), **undo)
    with pytest.raises(ConflictError, match="nobody asks for promote any more"):
        actions.refuse(followed.store, "classifier", followed.settings(), asked=(state.epoch, "promote"), why="", say=print)
    assert followed.versions() == before
    followed.ask("undo")
    before = followed.versions()
    # Asked for of another rollout.
    with pytest.raises(ConflictError, match="nobody asks for undo any more"):
        actions.undo(followed.store, "classifier", followed.settings(), asked=(state.epoch - 1, "undo"), **undo)
    with pytest.raises(ConflictError, match="somebody else runs it by now"):
        actions.refuse(followed.store, "classifier", followed.settings(), asked=(state.epoch - 1, "undo"), why="", say=print)
    assert followed.versions() == before
    assert followed.pair() == (2, 2)


def test_what_somebody_else_took_over_is_not_taken_over(followed: Followed) -> None:
    followed.ship(0)
    followed.stand(1, "validate_preview")
    seen, how = followed.stage.state().epoch, {"run_id": "late", "say": followed.said.append}
    followed.stand(1, "post_analysis", run_id="newer")
    before = followed.versions()
    with pytest.raises(ConflictError, match=r"somebody else runs it by now: epoch 3 \(run newer\)"):
        actions.go_on(followed.store, "classifier", followed.settings(), only_epoch=seen, **how)
    with pytest.raises(ConflictError, match=r"somebody else runs it by now: epoch 3 \(run newer\)"):
        actions.abort(followed.store, "classifier", followed.settings(), only_epoch=seen, reason="a test", **how)
    assert followed.versions() == before


def test_an_undo_of_one_release_does_not_undo_another(followed: Followed) -> None:
    for number in (0, 1, 2):
        followed.ship(number)
    with pytest.raises(StaleError, match=f"{followed.releases[1]} is not the current release any more"):
        undo_publication(followed.store, "late", only=followed.releases[1])
    assert followed.pair() == (2, 2)
