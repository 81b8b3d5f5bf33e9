"""The state of the local rollout, `rollouts/cloud.json`: who moves which release where, until when.

Any process may run a rollout, die in it, and run it again. The rule: act idempotently, then save the next state by compare-and-swap.
Each take-over raises the epoch; a process whose epoch is no longer the stored one is told so by its next save and changes nothing.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.core.errors import ConflictError, DataError
from components.core.gate import Reason
from components.core.stores import Store

STATE = "rollouts/cloud.json"
Phase = Literal["prepare", "analyze", "promote", "promoted", "aborting", "aborted", "rolled_back"]
LOADING: frozenset[Phase] = frozenset({"prepare", "analyze"})
"""The candidate is loaded beside the running version; live traffic stays where it is."""
SERVING: frozenset[Phase] = frozenset({"promote", "promoted"})
"""Live traffic goes to the candidate, until the channel confirms it or the deadline passes."""


class Event(BaseModel):
    """One line of the rollout's time line."""

    at: str
    phase: Phase
    text: str


class Rollout(BaseModel):
    """The content of rollouts/cloud.json."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["dual.rollout/v1"] = Field(default="dual.rollout/v1", alias="schema")
    epoch: int = Field(ge=1)
    strategy: Literal["labels"] = "labels"
    phase: Phase
    release: str
    """The candidate."""
    stable: str = ""
    """The release that the channel named when the rollout began; empty before the first."""
    sequence: int = 0
    """The channel's sequence then: if the channel moves on meanwhile, this rollout is void."""
    run_id: str
    deadline: str
    """UTC, ISO 8601: after it the phase is over, whoever still works on it."""
    reason: str = ""
    """Why it was aborted or rolled back."""
    checks: list[Reason] = []
    events: list[Event] = []

    def is_alive(self, now: datetime) -> bool:
        """Whether the phase still counts at `now`."""
        return self.phase in LOADING | SERVING and now < datetime.fromisoformat(self.deadline)

    def to(self, phase: Phase, text: str, *, now: datetime, within: float = 0.0, reason: str = "") -> Self:
        """The next state, `within` seconds before its deadline."""
        event = Event(at=stamp(now), phase=phase, text=text)
        deadline = stamp(now + timedelta(seconds=within))
        return self.model_copy(update={"phase": phase, "deadline": deadline, "reason": reason, "events": [*self.events, event]})


def utc_now() -> datetime:
    """The current time, with its zone."""
    return datetime.now(UTC)


def stamp(moment: datetime) -> str:
    """UTC in ISO 8601 with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def read_rollout(store: Store) -> tuple[Rollout, str] | None:
    """The state and its generation; None if there never was a rollout. `DataError` if the file is malformed."""
    found = store.find(STATE)
    if found is None:
        return None
    try:
        return Rollout.model_validate_json(found.data), found.generation
    except ValidationError as error:
        what = f"{'.'.join(str(part) for part in error.errors()[0]['loc'])}: {error.errors()[0]['msg']}"
        raise DataError(what, where=f"{store.uri}/{STATE}", fix="Delete the file: it holds no release, only a rollout's progress") from None


def save_rollout(store: Store, rollout: Rollout, generation: str | None) -> str:
    """Write the next state over the one read under `generation`; returns the new generation.

    Raises `ConflictError` if another process took the rollout over.
    """
    data = rollout.model_dump_json(by_alias=True, indent=1).encode()
    try:
        return store.swap(STATE, data, generation)
    except ConflictError:
        found = read_rollout(store)
        other = f"epoch {found[0].epoch}, run {found[0].run_id}, release {found[0].release}" if found else "nobody"
        what = f"the rollout of {rollout.release} (epoch {rollout.epoch}) was superseded by {other}"
        raise ConflictError(what, where=f"{store.uri}/{STATE}", fix="Run again once the other one is done") from None


def checked(rollout: Rollout, checks: Sequence[Reason]) -> Rollout:
    """The state with the analysis' checks."""
    return rollout.model_copy(update={"checks": list(checks)})
