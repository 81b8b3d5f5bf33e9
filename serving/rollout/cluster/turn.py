"""One process' turn at a rollout: how it waits, saves, and moves pods and traffic. What comes after what is in `machine`."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from components.core.errors import MissingObjectError, RolloutError
from components.core.gate import Reason
from serving.rollout.analysis.held import Held
from serving.rollout.analysis.pods import PodTarget
from serving.rollout.analysis.rules import Measurement
from serving.rollout.cluster.api import Json
from serving.rollout.cluster.names import REVISION, Names, query
from serving.rollout.cluster.objects import Objects
from serving.rollout.cluster.presence import Presence
from serving.rollout.cluster.settings import Plan
from serving.rollout.cluster.state import Book, ClusterRollout, Phase, Say
from serving.rollout.cluster.trouble import Logs, Trouble, explain, gone, troubles, way_out
from serving.rollout.state import utc_now

_REST, _GRPC = 8501, 8500


class Judge(Protocol):
    """What is asked of pods before and while they get live traffic."""

    def preview(self, candidate: list[PodTarget]) -> list[Reason]:
        """The checks of candidate pods that see no live traffic yet."""
        ...

    def measure(self, candidate: list[PodTarget], stable: list[PodTarget]) -> list[Measurement]:
        """One round of every metric."""
        ...


Witness = Callable[[list[PodTarget]], dict[PodTarget, Held]]
"""What each pod's own server says that it holds; never raises for what a pod does."""


@dataclass(frozen=True)
class Clock:
    """Time, so that it can be another one in a simulation."""

    now: Callable[[], datetime] = utc_now
    sleep: Callable[[float], None] = time.sleep


class Wanted(Exception):
    """Somebody asked for an action; caught by `Machine.run`."""

    def __init__(self, action: str) -> None:
        """Carry the action's name."""
        super().__init__(action)
        self.action = action


@dataclass
class Turn:
    """The hold of one process on a rollout, under one epoch."""

    objects: Objects
    book: Book
    names: Names
    state: ClusterRollout
    template: Json
    judge: Judge
    say: Say
    published: Callable[[str], bool]
    """Whether the pair of this release is published."""
    presence: Presence
    """What others see of this process."""
    heard: Callable[[ClusterRollout], None] = lambda _: None
    """Told of every saved transition."""
    clock: Clock = field(default_factory=Clock)
    held: Witness = lambda _: {}
    """Asked of the pods of hosts."""
    _pending: str = field(default="", init=False)
    """The action that the next save carries out."""
    _logs: Logs | None = field(default=None, init=False)

    @property
    def plan(self) -> Plan:
        """The plan that this rollout began with."""
        return self.state.plan

    @property
    def stable(self) -> str:
        """The revision that live traffic goes back to; empty at the first deployment."""
        return self.state.stable.revision if self.state.stable else ""

    @property
    def candidate(self) -> str:
        """The revision that comes."""
        return self.state.candidate.revision

    def where(self) -> str:
        """The rollout in words, for messages."""
        return f"rollout of {self.state.candidate.release} in namespace {self.names.namespace}"

    # --- saving and waiting -------------------------------------------------------------------------------------------------------

    def save(self, phase: Phase, text: str, *, within: float | None = None, **changes: object) -> None:
        """Save the next phase; `ConflictError` if another process took over."""
        following = self.state.to(phase, text, now=self.clock.now(), within=within, **changes)
        # An action that nobody took up must not outlive its rollout.
        self.book.save(following, taking=self._pending, clearing=following.is_over())
        self._pending = ""
        self.state = following
        self.say(f"{phase}: {text}")
        self.heard(following)

    def is_late(self) -> bool:
        """Whether the phase's deadline has passed."""
        return self.clock.now() >= datetime.fromisoformat(self.state.deadline)

    def tick(self, *, hold: bool = True) -> None:
        """Wait a moment, look, and hold what was made, unless that is not made yet. Raises as `look` and `hold`."""
        self.clock.sleep(self.plan.poll_seconds)
        self.look()
        if hold:
            self.hold()

    def look(self) -> None:
        """`ConflictError` if another process took over, `Wanted` if somebody asked for something."""
        self.objects.guard()
        action = self.book.action()
        if action and self.state.phase != "aborting":
            self._pending = action
            raise Wanted(action)

    def hold(self) -> None:
        """Whatever must stay as it is while this process waits."""

    def make_way(self) -> None:
        """Whatever must end before pods of the stable revision can start."""

    def wait(self, done: Callable[[], bool], why: Callable[[], RolloutError], *, hold: bool = True) -> None:
        """Wait until `done`; raises `why` not when the deadline passes."""
        while not done():
            if self.is_late():
                raise why()
            self.tick(hold=hold)

    def wait_ready(self, revision: str, replicas: int, *, keep: bool = False) -> None:
        """Wait until so many pods of a revision are ready; `RolloutError` with the reason if they will not be, or not in time.

        With `keep` their number is set again when somebody changes it.
        """

        def ready() -> bool:
            pods = self.objects.pods(revision)
            if keep and pods.wanted != replicas:
                self._rescale(revision, pods.wanted, replicas)
            elif pods.settled and pods.ready >= replicas:
                return True
            # The stable revision is waited for whatever its pods say: there is nothing better to turn to.
            found = [] if revision == self.stable else self._troubles(revision)
            if any(trouble.final for trouble in found):
                what = f"pods of {self._name(revision)} will not get ready: {explain(found)}"
                raise RolloutError(what, where=self.where(), fix=way_out(found))
            # A few of its pods, when the time is over, are better than what is wrong with the candidate.
            return revision == self.stable and self.is_late() and pods.ready > 0

        # What the stable revision is waited for is yet to be made.
        self.wait(ready, lambda: self._not_ready(revision, replicas), hold=revision != self.stable)

    def _not_ready(self, revision: str, replicas: int, what: str = "") -> RolloutError:
        found = self._troubles(revision)
        ready = f"{self.objects.pods(revision).ready} of {replicas} pods of {self._name(revision)} are ready"
        what = what or f"not within the deadline ({self.state.deadline})"
        return RolloutError(f"{what}: {ready}: {explain(found)}", where=self.where(), fix=way_out(found))

    def _rescale(self, revision: str, found: int, wanted: int) -> None:
        self.say(f"{self._name(revision)} has {found} pods where {wanted} are due: set to {wanted}")
        self.scale(revision, wanted)

    def _name(self, revision: str) -> str:
        return f"Deployment {self.names.deployment(revision)}"

    def _troubles(self, revision: str) -> list[Trouble]:
        self._logs = self._logs or Logs(self.objects.api)
        return troubles(self._logs, self.names, revision, self.objects.deployment(revision))

    def ready_pods(self) -> dict[str, list[PodTarget]]:
        """The ready pods of each revision, none that is ending."""
        found: dict[str, list[PodTarget]] = {self.candidate: [], self.stable: []}
        for pod in self.objects.api.list("Pod", query(self.names.labels)):
            if _is_ready(pod):
                revision = pod["metadata"]["labels"].get(REVISION, "")
                found.setdefault(revision, []).append(_target(pod, revision))
        return found

    # --- moving -------------------------------------------------------------------------------------------------------------------

    def scale(self, revision: str, replicas: int) -> None:
        """So many pods of a revision; `RolloutError` if its Deployment was deleted."""
        try:
            self.objects.scale(revision, replicas)
        except MissingObjectError:
            raise self.deleted(revision) from None

    def deleted(self, revision: str) -> RolloutError:
        """The error for a Deployment that somebody deleted."""
        trouble = gone(self.names, revision)
        return RolloutError(trouble.text, where=self.where(), fix=trouble.fix)

    def scale_and_wait(self, revision: str, replicas: int) -> None:
        """So many pods of a revision, all of them ready."""
        self.scale(revision, replicas)
        self.wait_ready(revision, replicas, keep=True)

    def select_preview(self, revision: str) -> None:
        """Let the preview Service select one revision; only a route needs that Service, everything else does without."""
        try:
            self.objects.select_preview(revision)
        except MissingObjectError:
            if self.state.routed:
                raise

    def withdraw_weight(self) -> None:
        """Weight 0 in the route, written explicitly; a route that was deleted gives none, and is told of."""
        if self.state.routed:
            try:
                self.objects.weigh(0)
            except MissingObjectError as error:
                self.say(f"no weight to take back: {error}")

    def back_to_stable(self, *, revive: bool) -> None:
        """Let the live Service select the stable revision alone, once it has ready pods.

        With `revive` it gets its pods back even if it is selected already (strategy recreate ends them before the switch).
        """
        live = self.objects.live()
        moves = live.shared or live.stable != self.stable
        if self.stable and (moves or (revive and not self.objects.pods(self.stable).ready)):
            self.make_way()
            filled = self.refill_stable()
            # It has its part of the traffic already: leaving a candidate that may be bad must not wait for the last of its pods.
            shares = live.shared and live.stable == self.stable and not filled
            self.wait_ready(self.stable, 1 if shares else max(1, self.objects.pods(self.stable).wanted))
        self.objects.select_live(self.stable)

    def refill_stable(self) -> bool:
        """The stable revision has its Deployment, and pods are on their way; True if it had none of that, and then it is said."""
        if self.state.stable is None:
            return False
        if self.objects.ensure_deployment(self.template, self.state.stable):
            self.say(f"{self._name(self.stable)} was deleted by somebody: it is made again from the template")
        if self.objects.pods(self.stable).wanted:
            return False
        self.say(f"{self._name(self.stable)} had no pods: set to {self.state.replicas}")
        self.objects.scale(self.stable, self.state.replicas)
        self.objects.ensure_autoscaler(self.stable)
        return True

    def empty_others(self) -> None:
        """No pods for any revision that neither has the live traffic nor is the one that comes."""
        kept = {self.objects.live().stable, self.candidate}
        found = {self.names.revision(each["metadata"]["name"]) for each in self.objects.revisions()}
        # The list goes by labels, which somebody may have changed.
        for revision in sorted((found | {self.stable}) - kept - {""}):
            self.empty(revision)

    def empty(self, revision: str) -> None:
        """No pods for this revision, and no autoscaler that could bring them back."""
        found = self.objects.autoscaler(revision)
        if found is not None:
            self.objects.remove("HorizontalPodAutoscaler", found)
        with suppress(MissingObjectError):
            self.objects.scale(revision, 0)

    def forget_old(self) -> None:
        """Delete the oldest Deployments without pods, beyond those that the plan keeps."""
        empty = [each for each in self.objects.revisions() if not each["spec"].get("replicas")]
        for deployment in empty[: -self.plan.revisions_kept]:
            self.objects.remove("Deployment", deployment)


def _target(pod: Json, revision: str) -> PodTarget:
    return PodTarget(pod["metadata"]["name"], pod["status"].get("podIP", ""), _REST, _GRPC, revision)


def _is_ready(pod: Json) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and not pod["metadata"].get("deletionTimestamp")
