"""The state of a rollout on an endpoint and the history of those before it, in one object of the store: `rollouts/endpoint.json`.

The rule: act idempotently (compare, then write), then save the next phase by compare-and-swap. Times are absolute and UTC. Each take-over
raises the epoch. What a person asks for is a field of the same object, so nothing that is asked for can be lost between two objects.
"""

from datetime import datetime, timedelta
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.core.errors import ConflictError, DataError, StaleError
from components.core.gate import Reason
from components.core.stores import Store
from serving.rollout.analysis.rules import Measurement, MetricResult
from serving.rollout.cluster.state import FINISHED, SWITCHED, Event, Moment, Phase, Sometime
from serving.rollout.endpoint.settings import EndpointPlace, EndpointPlan
from serving.rollout.state import stamp

STATE = "rollouts/endpoint.json"
_ATTEMPTS = 10
_MOST_EVENTS, _MOST_MEASUREMENTS, _MOST_HISTORY = 100, 200, 20
_LONGEST = 4000


class Deployment(BaseModel):
    """A release on Vertex AI: its model version, and the deployed model that serves it."""

    release: str
    version: str = ""
    """Resource name with the version, `projects/…/models/ID@3`; empty before it is uploaded."""
    deployed: str = ""
    """Id of the deployed model: 1 to 10 digits; empty before it is chosen."""


class Finished(BaseModel):
    """A rollout that is over."""

    epoch: int
    candidate: Deployment
    stable: str = ""
    outcome: Phase
    reason: str = ""
    run_id: str = ""
    started: str
    ended: str


class EndpointRollout(BaseModel):
    """The content of rollouts/endpoint.json."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["dual.endpoint-rollout/v1"] = Field(default="dual.endpoint-rollout/v1", alias="schema")
    epoch: int = Field(ge=1)
    phase: Phase
    kind: Literal["rollout", "undo"] = "rollout"
    """An undo moves to a release that was promoted before: no canary, no analysis."""
    step: int = 0
    name: str
    """The served model."""
    candidate: Deployment
    stable: Deployment | None = None
    """What had our live traffic when the rollout began; None before the first."""
    endpoint: str = ""
    """Resource name; empty until it is found or made."""
    split: dict[str, int] | None = None
    """The split that this rollout left; None: whatever there is is no surprise."""
    run_id: str
    sequence: int = 0
    """The channel's sequence when the rollout began."""
    place: EndpointPlace
    plan: EndpointPlan
    started: Moment
    deadline: Moment
    """When the phase must be over."""
    gated: bool = False
    paused_until: Sometime = ""
    """When a pause ends by itself; empty: when somebody ends it."""
    drain_until: Sometime = ""
    reason: str = ""
    action: str = ""
    """What somebody asked for and nobody has taken up yet."""
    asked: float = 0.0
    """The candidate's weight in percent that was asked for."""
    achieved: float = 0.0
    """The share of the answers in the current step that were the candidate's, in percent; 0 before any was counted."""
    answered: dict[str, int] = {}
    """Deployed model → the answers of the current step that it gave."""
    checks: list[Reason] = []
    results: dict[str, MetricResult] = {}
    measurements: list[Measurement] = []
    measured_at: Sometime = ""
    stepped_at: Sometime = ""
    events: list[Event] = []
    history: list[Finished] = []

    def to(self, phase: Phase, text: str, *, now: datetime, within: float | None = None, **changes: object) -> Self:
        """The next state; `within` seconds set the deadline anew, None keeps it."""
        following = self.model_copy(update={"phase": phase, "action": "", **changes})
        following = following.model_copy(update={"reason": following.reason[:_LONGEST]})
        event = Event(at=stamp(now), phase=phase, text=text[:_LONGEST], asked=following.asked, achieved=following.counted_share())
        deadline = self.deadline if within is None else stamp(now + timedelta(seconds=within))
        return following.model_copy(update={"deadline": deadline, "events": [*self.events, event][-_MOST_EVENTS:]})

    def measured(self, measurements: list[Measurement], results: dict[str, MetricResult], answered: dict[str, int], now: datetime) -> Self:
        """The state with one more round of measurements, and what was counted in it."""
        kept = [*self.measurements, *measurements][-_MOST_MEASUREMENTS:]
        counts = {k: self.answered.get(k, 0) + answered.get(k, 0) for k in {*self.answered, *answered}}
        counted = self.model_copy(update={"measurements": kept, "results": results, "measured_at": stamp(now), "answered": counts})
        return counted.model_copy(update={"achieved": counted.counted_share() or 0.0})

    def counted_share(self) -> float | None:
        """The candidate's share of the answers of the current step in percent; None before any was counted."""
        total = sum(self.answered.values())
        return 100.0 * self.answered.get(self.candidate.deployed, 0) / total if total else None

    def finished(self, outcome: Phase, reason: str, now: datetime) -> list[Finished]:
        """The history with this rollout in it, newest last."""
        entry = Finished(
            epoch=self.epoch,
            candidate=self.candidate,
            stable=self.stable.release if self.stable else "",
            outcome=outcome,
            reason=reason[:_LONGEST],
            run_id=self.run_id,
            started=self.started,
            ended=stamp(now),
        )
        return [*self.history, entry][-_MOST_HISTORY:]

    def was_found_bad(self, release: str, run_id: str) -> bool:
        """Whether this is how that run's rollout of the release ended, by what was measured; a lack of machines is no such end."""
        mine = (self.phase, self.candidate.release, self.run_id) == ("aborted", release, run_id)
        return mine and any(not check.passed for check in self.checks)

    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return self.phase in FINISHED


class Book:
    """The state as one process last saw it. Every save is a compare-and-swap on what was seen."""

    def __init__(self, store: Store) -> None:
        """Read nothing yet."""
        self._store = store
        self._generation: str | None = None
        self._seen: EndpointRollout | None = None
        self.where = f"{store.uri}/{STATE}"

    def read(self) -> EndpointRollout | None:
        """The state now; None if there never was a rollout. `DataError` if it is malformed."""
        found = self._store.find(STATE)
        self._generation = found.generation if found else None
        self._seen = self._parse(found.data) if found else None
        return self._seen

    def guard(self, epoch: int) -> str:
        """What somebody asked for; `ConflictError` if the rollout is another process' by now."""
        found = self.read()
        if found is None or found.epoch != epoch:
            raise self._taken_over(found, epoch)
        return found.action

    def save(self, state: EndpointRollout) -> None:
        """Write the next state over the one that was seen; what was asked for meanwhile is kept, unless the state is over.

        Raises `ConflictError` if another process has taken the rollout over.
        """
        before = self._seen
        for _ in range(_ATTEMPTS):
            try:
                self._generation = self._store.swap(STATE, state.model_dump_json(by_alias=True, indent=1).encode(), self._generation)
            except StaleError:
                now = self.read()
                if now == state:
                    return
                if now is None or before is None or now.model_copy(update={"action": before.action}) != before:
                    raise self._taken_over(now, state.epoch) from None
                if now.action != before.action and not state.is_over():
                    state = state.model_copy(update={"action": now.action})
                continue
            self._seen = state
            return
        raise ConflictError("somebody else changes it again and again", where=self.where, fix="Look with `dual rollout status`")

    def ask(self, action: str, epoch: int) -> None:
        """Note what a person asks of the process that runs this epoch; `ConflictError` if there is another epoch by now."""
        for _ in range(_ATTEMPTS):
            now = self.read()
            if now is None or now.epoch != epoch or now.is_over():
                raise self._taken_over(now, epoch)
            try:
                wanted = now.model_copy(update={"action": action})
                self._generation = self._store.swap(STATE, wanted.model_dump_json(by_alias=True, indent=1).encode(), self._generation)
            except StaleError:
                continue
            return
        raise ConflictError("it changes all the time", where=self.where, fix="Ask again")

    def _taken_over(self, now: EndpointRollout | None, epoch: int) -> ConflictError:
        who = f"epoch {now.epoch}, run {now.run_id}, release {now.candidate.release}, {now.phase}" if now else "nobody: it was deleted"
        what = f"the rollout (epoch {epoch}) was taken over by {who}"
        return ConflictError(what, where=self.where, fix="Look with `dual rollout status`; run again once that one is done")

    def _parse(self, data: bytes) -> EndpointRollout:
        try:
            return EndpointRollout.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            what = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
            fix = "It holds a rollout's progress and no release: use the version of dual that wrote it, or delete it"
            raise DataError(f"the rollout's state is malformed: {what}", where=self.where, fix=fix) from None


def served_release(store: Store) -> str:
    """The release that our traffic goes to by the last rollout; empty if there never was one on an endpoint."""
    state = Book(store).read()
    if state is None:
        return ""
    if state.phase in SWITCHED | {"promoted", "rolled_back"}:
        return state.candidate.release
    return state.stable.release if state.stable else ""
