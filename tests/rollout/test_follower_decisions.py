"""What a follower does: nothing while a process lives; else what state, annotation, store and plan say."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from serving.rollout.cluster.due import UNHELD_WITHIN, Due, Sight, find_due
from serving.rollout.cluster.presence import Vigil, is_held
from serving.rollout.cluster.revision import Revision
from serving.rollout.cluster.settings import Plan
from serving.rollout.cluster.state import ClusterRollout
from serving.rollout.state import stamp, utc_now

NOW = utc_now()
SILENT = 31.0
RUNNING = ["prepare", "validate_preview", "canary", "analyze", "paused", "promote", "post_analysis", "drain", "aborting"]
OVER = ["promoted", "aborted", "rolled_back", "superseded"]
ACTIONS = ["promote", "pause", "resume", "abort", "undo", "nonsense"]


def rollout(phase: Any = "analyze", *, kind: Any = "rollout", ends_in: float = 500.0, **plan: Any) -> ClusterRollout:
    return ClusterRollout(
        epoch=3,
        phase=phase,
        kind=kind,
        candidate=Revision(release="b" * 12, revision="b" * 12 + "-123456"),
        run_id="r",
        sequence=1,
        plan=Plan.model_validate(plan),
        started=stamp(NOW),
        deadline=stamp(NOW + timedelta(seconds=ends_in)),
    )


def due(state: ClusterRollout | None, *, published: bool = False, now: datetime = NOW, **sight: Any) -> Due:
    return find_due(Sight(state, **sight), now, lambda _: published)


def test_where_nothing_ever_was_nothing_is_due() -> None:
    assert due(None) == Due(None, "there never was a rollout", settled=True)
    assert due(None, action="undo").deed is None


@pytest.mark.parametrize("action", ["", *ACTIONS])
@pytest.mark.parametrize("phase", OVER)
def test_after_the_end_only_an_undo_means_something(phase: str, action: str) -> None:
    found = due(rollout(phase), action=action)
    assert found.deed == ({"": None, "undo": "undo"}.get(action, "refuse"))
    assert found.settled == (not action)


@pytest.mark.parametrize("action", ["", *ACTIONS])
@pytest.mark.parametrize("phase", RUNNING)
@pytest.mark.parametrize(("held", "silence"), [(True, 29.9), (False, UNHELD_WITHIN - 0.1)])
def test_who_gives_signs_of_life_is_left_alone(phase: str, action: str, held: bool, silence: float) -> None:
    found = find_due(Sight(rollout(phase, ends_in=-1000), action, held, silence), NOW, lambda _: pytest.fail("the store was asked"))
    assert found.deed is None
    assert not found.settled
    assert found.within == pytest.approx(0.1)


@pytest.mark.parametrize("action", ["", *ACTIONS])
@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("phase", [each for each in RUNNING if each != "drain"])
def test_an_abandoned_rollout_is_taken_over(phase: str, held: bool, action: str) -> None:
    found = due(rollout(phase), action=action, held=held, silence=SILENT)
    assert (found.deed, found.why) == ("go_on", "run r gave no sign of life for 31 s")


@pytest.mark.parametrize(("action", "deed"), [("", "abort"), ("pause", "abort"), ("promote", "go_on"), ("resume", "go_on")])
@pytest.mark.parametrize("phase", ["prepare", "analyze", "post_analysis", "drain"])
def test_or_taken_back_unless_a_person_wants_it(phase: str, action: str, deed: str) -> None:
    assert due(rollout(phase, if_abandoned="abort"), action=action, held=True, silence=SILENT).deed == deed


def test_what_goes_back_or_is_published_or_is_an_undo_is_brought_to_its_end() -> None:
    for state, published in (
        (rollout("aborting", if_abandoned="abort"), False),
        (rollout("drain", if_abandoned="abort"), True),
        (rollout("drain", kind="undo", if_abandoned="abort"), False),
        (rollout("drain", kind="undo", ends_in=-1), False),
    ):
        assert due(state, published=published, held=True, silence=SILENT).deed == "go_on"


@pytest.mark.parametrize("held", [True, False])
def test_an_undo_in_the_drain_of_a_published_pair(held: bool) -> None:
    assert due(rollout("drain"), published=True, action="undo", held=held, silence=SILENT).deed == "undo"
    assert due(rollout("drain"), published=True, action="abort", held=held, silence=SILENT).deed == "go_on"


@pytest.mark.parametrize(
    ("action", "deed"),
    [("", None), ("abort", "abort"), ("undo", "abort"), ("pause", "refuse"), ("promote", "refuse"), ("resume", "refuse")],
)
def test_a_publication_by_somebody_else_is_awaited(action: str, deed: str | None) -> None:
    found = due(rollout("drain", ends_in=20), action=action, silence=SILENT)
    assert found.deed == deed
    if deed is None:
        assert found.settled
        assert found.within == pytest.approx(20, abs=0.01)


@pytest.mark.parametrize("held", [True, False])
def test_what_is_not_published_in_time_goes_back(held: bool) -> None:
    assert due(rollout("drain", ends_in=-0.1), held=held, silence=SILENT).deed == "end_drain"
    # A deadline that a clock wrote which was ahead does not keep it for longer than the plan says.
    assert due(rollout("drain", ends_in=1e6, publish_within=900), held=held, silence=901).deed == "end_drain"
    assert due(rollout("drain", ends_in=-0.1), published=True, held=held, silence=SILENT).deed == "go_on"


# --- signs of life ----------------------------------------------------------------------------------------------------------------


def lease(version: str = "1", *, epoch: int = 3, holder: str = "r") -> dict[str, Any]:
    return {"metadata": {"resourceVersion": version, "annotations": {"dual.dev/epoch": str(epoch)}}, "spec": {"holderIdentity": holder}}


def test_a_lease_counts_for_its_own_epoch_and_while_somebody_holds_it() -> None:
    state = rollout()
    assert is_held(lease(), state)
    assert not is_held(None, state)
    assert not is_held(lease(epoch=2), state)
    assert not is_held(lease(holder=""), state)
    assert not is_held({"metadata": {"resourceVersion": "1"}}, state)


def test_silence_is_counted_by_the_observers_own_clock() -> None:
    now = [100.0]
    vigil = Vigil(clock=lambda: now[0])
    state = rollout()
    assert vigil.silence(state, lease("1")) == 0
    now[0] += 20
    assert vigil.silence(state, lease("1")) == 20
    assert not vigil.moved
    # A renewal, a saved phase, a release, a new epoch: each is a sign.
    for changed, seen in (
        (state, lease("2")),
        (rollout("paused"), lease("2")),
        (rollout("paused"), lease("3", holder="")),
        (rollout("promote"), None),
    ):
        assert vigil.silence(changed, seen) == 0
        assert vigil.moved
        now[0] += 5
        assert vigil.silence(changed, seen) == 5
    # A process that was overtaken renews its Lease in vain.
    assert vigil.silence(rollout("promote"), lease("9", epoch=2)) == 5
    vigil.forget()
    assert vigil.silence(rollout("promote"), None) == 0
    assert not vigil.moved
