"""Deliberate mistakes in rollouts by labels. A harness that does not catch them proves nothing."""

from collections.abc import Callable

from serving.rollout.cluster.holding import Holding
from serving.rollout.cluster.labels import LabelMachine


def believe_the_record() -> None:
    """What was written is taken for done: no server is asked."""

    def wrong(self: LabelMachine, host: str, holding: Holding) -> list[str]:
        del self, host, holding
        return []

    LabelMachine._lagging = wrong
    LabelMachine._lacking = wrong


def forget_what_was_before() -> None:
    """The version of before is let go at the switch, and not when the pair is published and the delay is over."""
    right = LabelMachine._switched

    def wrong(self: LabelMachine) -> Holding:
        holding = right(self)
        return Holding(stable=holding.stable, releases={holding.stable: holding.releases[holding.stable]})

    LabelMachine._switched = wrong


def leave_the_label() -> None:
    """An abort saves that it went back, and leaves the record as it is."""
    right = LabelMachine.back_to_stable

    def wrong(self: LabelMachine, *, revive: bool) -> None:
        if self.state.phase != "aborting":
            right(self, revive=revive)

    LabelMachine.back_to_stable = wrong


MUTANTS: dict[str, Callable[[], None]] = {each.__name__: each for each in (believe_the_record, forget_what_was_before, leave_the_label)}
