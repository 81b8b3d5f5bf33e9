"""One process' turn at a rollout: how it waits, saves, and moves pods and traffic. What comes after what is in `machine`."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from components.core.errors import RolloutError
from components.core.gate import Reason
from serving.rollout.analysis.pods import PodTarget
from serving.rollout.analysis.rules import Measurement
from serving.rollout.cluster.api import Json
from serving.rollout.cluster.names import REVISION, Names, query
from serving.rollout.cluster.objects import Objects
from serving.rollout.cluster.settings import Plan
from serving.rollout.cluster.state import Book, ClusterRollout, Phase, Say
from serving.rollout.cluster.trouble import Trouble, explain, troubles
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
    heard: Callable[[ClusterRollout], None] = lambda _: None
    """Told of every saved transition."""
    clock: Clock = field(default_factory=Clock)
    _pending: str = field(default="", init=False)
    """The action that the next save carries out."""

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
        self.book.save(following, taking=bool(self._pending) or following.is_over())
        self._pending = ""
        self.state = following
        self.say(f"{phase}: {text}")
        self.heard(following)

    def is_late(self) -> bool:
        """Whether the phase's deadline has passed."""
        return self.clock.now() >= datetime.fromisoformat(self.state.deadline)

    def tick(self) -> None:
        """Wait a moment. `ConflictError` if another process took over, `Wanted` if somebody asked for something."""
        self.clock.sleep(self.plan.poll_seconds)
        self.objects.guard()
        action = self.book.action()
        if action and self.state.phase != "aborting":
            self._pending = action
            raise Wanted(action)

    def wait(self, done: Callable[[], bool], why: Callable[[], str]) -> None:
        """Wait until `done`; `RolloutError` with `why` not when the deadline passes."""
        while not done():
            if self.is_late():
                raise RolloutError(f"not within the deadline ({self.state.deadline}): {why()}", where=self.where())
            self.tick()

    def wait_ready(self, revision: str, replicas: int) -> None:
        """Wait until so many pods of a revision are ready; `RolloutError` with the reason if they will not be, or not in time."""

        def ready() -> bool:
            pods = self.objects.pods(revision)
            if pods.settled and pods.ready >= replicas:
                return True
            # The stable revision is waited for whatever its pods say: there is nothing better to turn to.
            found = [] if revision == self.stable else self._troubles(revision)
            if any(trouble.final for trouble in found):
                raise RolloutError(f"pods of {revision} will not get ready: {explain(found)}", where=self.where())
            return False

        def why() -> str:
            return f"{self.objects.pods(revision).ready} of {replicas} pods of {revision} are ready: {explain(self._troubles(revision))}"

        self.wait(ready, why)

    def _troubles(self, revision: str) -> list[Trouble]:
        return troubles(self.objects.api, self.names, revision, self.objects.deployment(revision))

    def ready_pods(self, revision: str) -> list[PodTarget]:
        """The ready pods of a revision, none that is ending."""
        found = self.objects.api.list("Pod", query(self.names.selector(revision)))
        return [_target(pod, revision) for pod in found if _is_ready(pod)]

    # --- moving -------------------------------------------------------------------------------------------------------------------

    def scale_and_wait(self, revision: str, replicas: int) -> None:
        """So many pods of a revision, all of them ready."""
        self.objects.scale(revision, replicas)
        self.wait_ready(revision, replicas)

    def back_to_stable(self, *, revive: bool) -> None:
        """Let the live Service select the stable revision alone, once it has ready pods.

        With `revive` it gets its pods back even if it is selected already (strategy recreate ends them before the switch).
        """
        live = self.objects.live()
        moves = live.shared or live.stable != self.stable
        if self.stable and (moves or (revive and not self.objects.pods(self.stable).ready)):
            self._revive_stable()
        self.objects.select_live(self.stable)

    def _revive_stable(self) -> None:
        if self.state.stable and self.objects.ensure_deployment(self.template, self.state.stable):
            self.say(f"Deployment {self.names.deployment(self.stable)} was deleted: it is made again from the template")
        if not self.objects.pods(self.stable).wanted:
            self.objects.scale(self.stable, self.state.replicas)
            self.objects.ensure_autoscaler(self.stable)
        self.wait_ready(self.stable, max(1, self.objects.pods(self.stable).wanted))

    def empty_others(self) -> None:
        """No pods for any revision that neither has the live traffic nor is the one that comes."""
        kept = {self.objects.live().stable, self.candidate}
        for deployment in self.objects.revisions():
            revision = deployment["metadata"]["labels"][REVISION]
            if revision not in kept:
                self.empty(revision)

    def empty(self, revision: str) -> None:
        """No pods for this revision, and no autoscaler that could bring them back."""
        found = self.objects.autoscaler(revision)
        if found is not None:
            self.objects.remove("HorizontalPodAutoscaler", found)
        if self.objects.deployment(revision) is not None:
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
