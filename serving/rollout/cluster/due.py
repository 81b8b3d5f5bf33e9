"""What a follower of rollouts has to do now, from what it sees: the state, what somebody asked for, and signs of life of a process.

Who runs a rollout is left alone as long as it lives. What nobody runs is over, or waits for its publication, or was abandoned.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from serving.rollout.cluster.state import ClusterRollout

Deed = Literal["undo", "refuse", "abort", "go_on", "end_drain"]
"""Undo a published pair; take an action away that means nothing; take an unpublished rollout back; take over and bring to the end; take
over and see whether the pair is published, without publishing it."""

UNHELD_WITHIN = 10.0
"""Seconds without a change after which a rollout whose Lease nobody holds is looked after: whoever begins one takes it in less."""
_STEER = frozenset({"promote", "resume"})


@dataclass(frozen=True)
class Sight:
    """What there is to see at one moment."""

    state: ClusterRollout | None
    """None: there never was a rollout."""
    action: str = ""
    """What somebody asked for by annotation; empty for nothing."""
    held: bool = False
    """Whether a process of the state's epoch holds the Lease; it may have died since."""
    silence: float = 0.0
    """Seconds since the last sign of life that this follower saw."""


@dataclass(frozen=True)
class Due:
    """What to do, or how long nothing is due."""

    deed: Deed | None
    """None: nothing."""
    why: str
    """For people."""
    within: float = float("inf")
    """Seconds after which to look again although nothing changed."""
    settled: bool = False
    """Whether it is certain that nothing is to be done by whoever looks now."""


def find_due(sight: Sight, now: datetime, is_published: Callable[[ClusterRollout], bool]) -> Due:
    """What is due; `is_published` asks the store whether the candidate's pair is published, and is only called where that matters."""
    state = sight.state
    if state is None:
        return Due(None, "there never was a rollout", settled=True)
    if state.is_over():
        return _after_the_end(state, sight.action)
    patience = state.plan.alive_within if sight.held else min(state.plan.alive_within, UNHELD_WITHIN)
    if sight.silence < patience:
        return Due(None, f"run {state.run_id} is at it ({state.kind} of {state.candidate.release})", within=patience - sight.silence)
    if state.phase == "drain" and state.kind == "rollout":
        return _in_drain(sight, state, now, published=is_published(state))
    return _abandoned(sight, state, published=False)


def _after_the_end(state: ClusterRollout, action: str) -> Due:
    if action == "undo":
        return Due("undo", "undo was asked for by annotation")
    if action:
        return Due("refuse", f"means nothing when no rollout is in progress (the last one is {state.phase})")
    return Due(None, f"the {state.kind} of {state.candidate.release} is over: {state.phase}", settled=True)


def _in_drain(sight: Sight, state: ClusterRollout, now: datetime, *, published: bool) -> Due:
    if published:
        return Due("undo", "undo was asked for by annotation") if sight.action == "undo" else _abandoned(sight, state, published=True)
    if sight.action in ("abort", "undo"):
        return Due("abort", f"{sight.action} was asked for by an operator")
    left = min((datetime.fromisoformat(state.deadline) - now).total_seconds(), state.plan.publish_within - sight.silence)
    if left <= 0:
        return Due("end_drain", f"the pair was not published within {state.plan.publish_within:g} s")
    if sight.held:
        return _abandoned(sight, state, published=False)
    if sight.action:
        return Due("refuse", "means nothing while the publication is awaited")
    return Due(None, f"the publication of {state.candidate.release} is awaited until {state.deadline}", within=left, settled=True)


def _abandoned(sight: Sight, state: ClusterRollout, *, published: bool) -> Due:
    """Its process died. A person who asks for an action has the last word."""
    why = f"run {state.run_id} gave no sign of life for {sight.silence:.0f} s"
    takes_back = state.plan.if_abandoned == "abort" and state.kind == "rollout" and sight.action not in _STEER
    if takes_back and not published and state.phase != "aborting":
        return Due("abort", f"{why}, and the plan takes back what was abandoned")
    return Due("go_on", why)
