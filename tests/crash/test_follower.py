"""A follower does what is asked, abandoned or overdue when no process runs the rollout."""

from collections.abc import Callable
from typing import Any

import pytest

from components.core.errors import DualError
from serving.rollout.cluster import actions
from tests.crash.followers import Followed, going_on, shown, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


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
