"""The state of a cluster's rollout and the history of those before it, in one ConfigMap: one object, one compare-and-swap.

The rule: act idempotently (compare, then write), then save the next phase. Times are absolute and UTC, so whoever takes over waits no
longer than the one before would have; a phase whose time ran out while nobody waited has it once more. Each take-over raises the epoch.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from components.core.errors import ConflictError, DataError, MissingObjectError
from components.core.gate import Reason
from serving.rollout.analysis.rules import Measurement, MetricResult
from serving.rollout.cluster.api import Api, ChangedError, Json
from serving.rollout.cluster.names import ACTION, MANAGED_BY, MANAGER, Names
from serving.rollout.cluster.revision import Revision
from serving.rollout.cluster.settings import Plan
from serving.rollout.state import stamp

Phase = Literal[
    "prepare",
    "validate_preview",
    "canary",
    "analyze",
    "paused",
    "promote",
    "post_analysis",
    "drain",
    "promoted",
    "aborting",
    "aborted",
    "rolled_back",
    "superseded",
]
FINISHED: frozenset[Phase] = frozenset({"promoted", "aborted", "rolled_back", "superseded"})
SWITCHED: frozenset[Phase] = frozenset({"post_analysis", "drain"})
"""All live traffic is the candidate's already."""

_STATE = "state.json"
_ATTEMPTS = 10
_MOST_EVENTS, _MOST_MEASUREMENTS, _MOST_HISTORY = 100, 200, 20
_LONGEST = 4000
"""Characters of a text: it may quote an error, and that one a log or a whole answer."""
_UNKNOWN_HERE = frozenset({"extra_forbidden", "literal_error"})
"""How a state reads that a newer version wrote: a key, or a word, that is not known yet."""
_MOST_BYTES = 1_000_000
"""A ConfigMap holds 1 MiB."""


def _checked_moment(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("has no time zone")
    return text


Moment = Annotated[str, AfterValidator(_checked_moment)]
"""ISO 8601 with its zone."""
Sometime = Annotated[str, AfterValidator(lambda text: text and _checked_moment(text))]
"""A moment, or empty."""


class Event(BaseModel):
    """One line of the time line."""

    at: Moment
    phase: Phase
    text: str
    asked: float | None = None
    """The candidate's weight in percent that was asked for."""
    achieved: float | None = None
    """The weight that ready pods, or the route, really give."""


class Finished(BaseModel):
    """A rollout that is over."""

    epoch: int
    revision: Revision
    stable: str = ""
    outcome: Phase
    reason: str = ""
    run_id: str = ""
    started: str
    ended: str


class ClusterRollout(BaseModel):
    """The content of the ConfigMap's state.json."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["dual.cluster-rollout/v1"] = Field(default="dual.cluster-rollout/v1", alias="schema")
    epoch: int = Field(ge=1)
    phase: Phase
    kind: Literal["rollout", "undo"] = "rollout"
    """An undo moves to a release that was promoted before: no canary, no analysis, the preview's checks alone."""
    step: int = 0
    """The canary's step, from 0."""
    candidate: Revision
    stable: Revision | None = None
    """What had the live traffic when the rollout began; None before the first."""
    run_id: str
    sequence: int = 0
    """The channel's sequence when the rollout began."""
    plan: Plan
    routed: bool = False
    """Whether the cluster has an HTTPRoute for this model: it makes the weights, and not the number of pods."""
    replicas: int = 1
    """How many candidate pods take over."""
    still_up: bool = False
    """At an undo: whether the pods of before were all ready when it began. Those that it starts itself are checked."""
    pods_digest: str = ""
    """What the candidate's pods ran when they were checked: it must be the same when they get traffic. Empty before."""
    started: Moment
    deadline: Moment
    """When the phase must be over."""
    gated: bool = False
    """Whether the manual gate before the promotion was reached: what ends the pause promotes."""
    begun_anew: int = 0
    """How often the steps began anew because the candidate had no pod left."""
    paused_until: Sometime = ""
    """When a pause ends by itself; empty: when somebody ends it."""
    drain_until: Sometime = ""
    """Before this moment the old pods stay."""
    reason: str = ""
    asked: float = 0.0
    achieved: float = 0.0
    checks: list[Reason] = []
    results: dict[str, MetricResult] = {}
    """What became of each metric in the current step."""
    measurements: list[Measurement] = []
    """The latest measurements of all steps, oldest first, for the picture."""
    measured_at: Sometime = ""
    """When the current step was last measured; empty before the first time."""
    stepped_at: Sometime = ""
    """When the current step's weight was there, or the analysis after the switch began; empty before."""
    events: list[Event] = []
    history: list[Finished] = []

    def to(self, phase: Phase, text: str, *, now: datetime, within: float | None = None, **changes: object) -> Self:
        """The next state; `within` seconds set the deadline anew, None keeps it."""
        following = self.model_copy(update={"phase": phase, **changes})
        following = following.model_copy(update={"reason": following.reason[:_LONGEST]})
        event = Event(at=stamp(now), phase=phase, text=text[:_LONGEST], asked=following.asked, achieved=following.achieved)
        deadline = self.deadline if within is None else stamp(now + timedelta(seconds=within))
        return following.model_copy(update={"deadline": deadline, "events": [*self.events, event][-_MOST_EVENTS:]})

    def measured(self, measurements: list[Measurement], results: dict[str, MetricResult], now: datetime) -> Self:
        """The state with one more round of measurements."""
        kept = [*self.measurements, *measurements][-_MOST_MEASUREMENTS:]
        return self.model_copy(update={"measurements": kept, "results": results, "measured_at": stamp(now)})

    def finished(self, outcome: Phase, reason: str, now: datetime) -> list[Finished]:
        """The history with this rollout in it, newest last."""
        entry = Finished(
            epoch=self.epoch,
            revision=self.candidate,
            stable=self.stable.revision if self.stable else "",
            outcome=outcome,
            reason=reason,
            run_id=self.run_id,
            started=self.started,
            ended=stamp(now),
        )
        return [*self.history, entry][-_MOST_HISTORY:]

    def by_the_clock(self, now: datetime) -> Self:
        """The same with no moment later than its plan allows from now on: a machine whose clock was ahead may have written it.

        A clock that was behind can't be told from a process that ended long ago: what that one waited for is over.
        """
        plan = self.plan
        pauses = [step.pause for step in plan.steps if isinstance(step.pause, float)]
        seconds = {
            "deadline": plan.publish_within if self.phase == "drain" else plan.progress_deadline,
            "paused_until": max(pauses, default=0.0),
            "drain_until": plan.scale_down_delay,
            "measured_at": 0.0,
            "stepped_at": 0.0,
        }
        latest = {name: now + timedelta(seconds=most) for name, most in seconds.items()}
        return self.model_copy(update={name: _at_most(getattr(self, name), latest[name]) for name in latest})

    def shortened(self) -> Self:
        """The same without the older half of what there is to see, the least important first; itself if nothing can be spared."""
        kept = {name: each.model_copy(update={"recent": each.recent[-1:]}) for name, each in self.results.items()}
        for name, shorter in (
            ("checks", [each.model_copy(update={"text": each.text[:_LONGEST]}) for each in self.checks]),
            ("measurements", self.measurements[(len(self.measurements) + 1) // 2 :]),
            ("results", kept),
            ("events", self.events[len(self.events) // 2 :]),
            ("history", self.history[len(self.history) // 2 :]),
        ):
            if shorter != getattr(self, name):
                return self.model_copy(update={name: shorter})
        return self

    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return self.phase in FINISHED


class Book:
    """The ConfigMap as one process last saw it. Every save is a compare-and-swap on what was seen."""

    def __init__(self, api: Api, names: Names) -> None:
        """Read nothing yet."""
        self._api, self._names, self._seen = api, names, None
        self.where = f"ConfigMap {names.namespace}/{names.state}"

    _seen: Json | None
    _own = ""
    """The uid of the ConfigMap that this process wrote; empty before it wrote."""

    def is_own(self) -> bool:
        """Whether the ConfigMap, as last read, is the very one that this process wrote: epochs count anew if it is deleted."""
        return not self._own or (self._seen is not None and self._seen["metadata"]["uid"] == self._own)

    def read(self) -> ClusterRollout | None:
        """The state now; None if there never was a rollout. `DataError` if it is malformed."""
        return self.see(self._api.find("ConfigMap", self._names.state))

    def see(self, found: Json | None) -> ClusterRollout | None:
        """The state in a ConfigMap that was just read otherwise; else as `read`."""
        self._seen = found
        return self._parse(found) if found else None

    def action(self) -> str:
        """What a person asked for, as last read; empty if nothing."""
        return self._annotations().get(ACTION, "")

    def epoch(self) -> int:
        """The epoch now (reads); 0 if there is no state."""
        found = self.read()
        return found.epoch if found else 0

    def save(self, state: ClusterRollout, *, taking: str = "", clearing: bool = False) -> None:
        """Write the next state; `taking` removes the action that it carries out, `clearing` whichever there is that means nothing any more.

        Raises `ConflictError` if another process has taken the rollout over (or someone edited the state).
        """
        before, state = self._parse(self._seen) if self._seen else None, _fitting(state)
        for _ in range(_ATTEMPTS):
            try:
                self._seen = self._write(state, taking, clearing)
            except (ChangedError, MissingObjectError):
                if not self._is_written(before, state):
                    continue
            self._own = self._seen["metadata"]["uid"] if self._seen else ""
            return
        fix = "Find out who: kubectl get configmap -o yaml --show-managed-fields"
        raise ConflictError("somebody else changes it again and again", where=self.where, fix=fix)

    def _write(self, state: ClusterRollout, taking: str, clearing: bool) -> Json:
        annotations = self._annotations()
        # Somebody may have asked for something else since: that is for the next look.
        if (clearing and not _outlives(annotations.get(ACTION, ""), state)) or (taking and annotations.get(ACTION) == taking):
            annotations.pop(ACTION, None)
        metadata: Json = {
            "name": self._names.state,
            "namespace": self._names.namespace,
            "labels": {**self._names.labels, MANAGED_BY: MANAGER},
        }
        body: Json = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
        body["data"] = {_STATE: _text_of(state)}
        metadata["annotations"] = annotations
        if self._seen is None:
            return self._api.create("ConfigMap", body)
        metadata |= {"resourceVersion": self._seen["metadata"]["resourceVersion"], "uid": self._seen["metadata"]["uid"]}
        return self._api.replace("ConfigMap", body)

    def _is_written(self, before: ClusterRollout | None, wanted: ClusterRollout) -> bool:
        """After a lost swap: True if our own write's answer was lost, False if only annotations changed, else `ConflictError`."""
        now = self.read()
        if now == wanted:
            return True
        if now is not None and now == before:
            return False
        other = (
            f"epoch {now.epoch}, run {now.run_id}, release {now.candidate.release}, {now.phase}" if now else "nobody: the state was deleted"
        )
        what = f"the rollout of {wanted.candidate.release} (epoch {wanted.epoch}) was taken over by {other}"
        raise ConflictError(what, where=self.where, fix="Look with `dual rollout status`; run again once that one is done")

    def _annotations(self) -> dict[str, str]:
        return dict(self._seen["metadata"].get("annotations") or {}) if self._seen else {}

    def _parse(self, found: Json) -> ClusterRollout:
        try:
            return ClusterRollout.model_validate_json(found["data"][_STATE])
        except KeyError as error:
            raise self._malformed(f"the key {error} is missing") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            if first["type"] in _UNKNOWN_HERE:
                raise self._of_another_version(where) from None
            raise self._malformed(f"{where}: {first['msg']}") from None

    def _malformed(self, what: str) -> DataError:
        fix = f"It holds no release, only a rollout's progress: kubectl -n {self._names.namespace} delete configmap {self._names.state}"
        return DataError(f"the rollout's state is malformed: {what}", where=self.where, fix=fix)

    def _of_another_version(self, key: str) -> DataError:
        # Nobody is told to delete it: that would lose a rollout that goes well.
        fix = "Use the version that wrote it: the pipeline's images, the follower's and this machine's `dual` have to be of one version"
        return DataError(f"the rollout's state says {key}, which this version of dual does not know", where=self.where, fix=fix)


def _outlives(action: str, state: ClusterRollout) -> bool:
    """Whether an action still means something when the rollout is over: an undo of what was promoted in this very moment."""
    return action == "undo" and state.phase == "promoted"


def _text_of(state: ClusterRollout) -> str:
    return state.model_dump_json(by_alias=True, indent=1)


def _fitting(state: ClusterRollout) -> ClusterRollout:
    """What fits into a ConfigMap: a rollout that could not be saved could not even be aborted."""
    while len(_text_of(state).encode()) > _MOST_BYTES and (shorter := state.shortened()) != state:
        state = shorter
    return state


def _at_most(text: str, latest: datetime) -> str:
    return stamp(latest) if text and datetime.fromisoformat(text) > latest else text


Say = Callable[[str], None]
