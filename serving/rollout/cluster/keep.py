"""What stays as a phase made it, whoever changes it by hand: it is set back and said, or, where that can't be, the rollout goes back.

An operator may do what the rollout does not decide: scale the stable revision, let an autoscaler scale it, take the old pods away.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from components.core.errors import MissingObjectError, RolloutError
from serving.rollout.cluster.api import Json
from serving.rollout.cluster.objects import Live
from serving.rollout.cluster.revision import pods_digest
from serving.rollout.cluster.state import SWITCHED, Phase
from serving.rollout.cluster.turn import Turn
from serving.rollout.cluster.weights import pods_for, routed_pods_for, share

_EMPTY_LOOKS = 5
"""So often in a row no pod must be ready before it counts: a kubelet that starts again takes its pods for unready for a moment."""


class Emptied(Exception):
    """A route gives the candidate weight and none of its pods is ready any more; caught by `Machine.run`."""


@dataclass
class Keeper(Turn):
    """Looks after the objects while its process waits or measures."""

    _STEPWISE: ClassVar[frozenset[Phase]] = frozenset({"canary", "analyze", "paused"})
    _empty_looks: int = field(default=0, init=False)

    def hold(self) -> None:
        """Set back what somebody changed. `RolloutError` if the candidate is not what was checked, or gone, `Emptied` if it says so."""
        if self.state.phase == "aborting":
            return
        if self.state.phase in SWITCHED:
            self._hold_successor()
        else:
            stable = self._hold_stable()
            if self.state.phase != "prepare":
                self._hold_candidate(stable)
        self._hold_traffic()

    # --- what the plan makes of a revision ----------------------------------------------------------------------------------------

    def recreates(self) -> bool:
        """Whether the old pods end before the new ones start, because there is room for one revision only."""
        return self.plan.strategy == "recreate" and self.stable not in ("", self.candidate)

    def is_stepwise(self) -> bool:
        """Whether the candidate's share of the traffic grows by steps."""
        return self.plan.strategy == "canary" and self.state.kind == "rollout" and bool(self.stable)

    def rehearses(self) -> bool:
        """Whether the candidate is measured beside the stable version before it has all live traffic."""
        return self.is_stepwise()

    def leaves_something(self) -> bool:
        """Whether there is something old to keep after the switch; not at a first deployment."""
        return self.stable not in ("", self.candidate)

    def first_pods(self) -> int:
        """Candidate pods before any traffic."""
        return self.pods_for(self.plan.steps[0].weight) if self.is_stepwise() else self.state.replicas

    def pods_for(self, weight: int, serving: int | None = None) -> int:
        """Candidate pods for a weight, beside as many stable ones as there are now (`serving`, if that is known)."""
        beside = max(1, self.objects.pods(self.stable).wanted if serving is None else serving)
        return routed_pods_for(weight, beside) if self.state.routed else pods_for(weight, beside)

    def weight_in_force(self) -> int:
        """The step's weight once it was given, until then the one of the step before; 0 where there are no steps."""
        if not self.is_stepwise():
            return 0
        step = self.state.step if self.state.stepped_at else self.state.step - 1
        return self.plan.steps[step].weight if step >= 0 else 0

    def make_way(self) -> None:
        """Where there is room for one revision only, the stable one's pods can't start before all others have ended."""
        if self.recreates():
            others = {self.names.revision(each["metadata"]["name"]) for each in self.objects.revisions()} | {self.candidate}
            for revision in sorted(others - {self.stable}):
                self.end_pods(revision)

    def end_pods(self, revision: str) -> None:
        """No pods of a revision, and none that is still there; `RolloutError` if they do not end in time."""
        self.empty(revision)
        late = RolloutError(f"the pods of {self._name(revision)} did not end", where=self.where())
        self.wait(lambda: not self.objects.pods(revision).ready, lambda: late, hold=False)

    # --- before the switch --------------------------------------------------------------------------------------------------------

    def _hold_stable(self) -> Json | None:
        """It has the live traffic, or the most of it: it must not be gone."""
        if self.stable in ("", self.candidate) or (self.recreates() and self.state.phase == "promote"):
            return None
        found = self.objects.deployment(self.stable)
        if found is not None and found["spec"].get("replicas"):
            return found
        self.refill_stable()
        return self.objects.deployment(self.stable)

    def _hold_candidate(self, stable: Json | None) -> None:
        found = self.objects.deployment(self.candidate)
        departed = self._departure(found)
        if found is None or departed:
            raise departed or self.deleted(self.candidate)
        wanted = self._due(stable)
        if wanted and found["spec"].get("replicas", 0) != wanted:
            self._rescale(self.candidate, found["spec"].get("replicas", 0), wanted)
        if self.state.phase in ("analyze", "paused") and self.weight_in_force():
            ready = _ready(found)
            if self.state.routed and not ready:
                raise Emptied
            achieved = self.weight_in_force() if self.state.routed else share(ready, _ready(stable))
            self.state = self.state.model_copy(update={"achieved": achieved})

    def _departure(self, found: Json | None) -> RolloutError | None:
        """In what the candidate's Deployment is no longer what was checked."""
        if found is None:
            return self.deleted(self.candidate)
        if self.state.pods_digest not in ("", pods_digest(found)):
            what = f"{self._name(self.candidate)} was edited by somebody: its pods are not what was checked"
            fix = f"Change the template Deployment {self.names.template} instead, then run again"
            return RolloutError(what, where=self.where(), fix=fix)
        return None

    def _due(self, stable: Json | None) -> int:
        """How many candidate pods this phase has; 0 while that changes."""
        if self.state.phase == "validate_preview":
            return self.first_pods()
        if self.state.phase not in ("analyze", "paused"):
            return 0
        if not self.is_stepwise():
            return self.state.replicas
        serving = stable["spec"].get("replicas", 0) if stable else 0
        return self.pods_for(self.weight_in_force(), serving) if self.state.stepped_at else 0

    # --- after the switch ---------------------------------------------------------------------------------------------------------

    def is_published(self) -> bool:
        """Whether the pair is published already: then the cloud half alone must not go back."""
        return self.state.phase == "drain" and self.published(self.state.candidate.release)

    def _hold_successor(self) -> None:
        """It has all live traffic. Until the pair is published, old pods that are still ready are better than none."""
        found = self.objects.deployment(self.candidate)
        if not self.is_published() and (trouble := self._trouble(found)) and self._has_ready_stable():
            raise trouble
        if found is not None and found["spec"].get("replicas"):
            return
        if self.objects.ensure_deployment(self.template, self.state.candidate):
            self.say(f"{self._name(self.candidate)} was deleted by somebody: it is made again from the template")
        self.say(f"{self._name(self.candidate)} had no pods: set to {self.state.replicas}")
        self.scale(self.candidate, self.state.replicas)

    def _trouble(self, found: Json | None) -> RolloutError | None:
        self._empty_looks = 0 if _ready(found) else self._empty_looks + 1
        if self._empty_looks < _EMPTY_LOOKS:
            return self._departure(found)
        return self._not_ready(self.candidate, self.state.replicas, f"{self._name(self.candidate)} has no ready pod any more")

    def _has_ready_stable(self) -> bool:
        return self.stable not in ("", self.candidate) and self.objects.pods(self.stable).ready > 0

    def has_enough(self) -> bool:
        """Whether the candidate can do without the old pods. When the time is over some of its pods are enough, but never none."""
        pods = self.objects.pods(self.candidate)
        if pods.ready >= max(1, min(pods.wanted, self.state.replicas)):
            return True
        if not self.is_late():
            return False
        if not pods.ready:
            raise self._not_ready(self.candidate, self.state.replicas, "the old pods stay, for the new ones are gone")
        self.say(f"{self._name(self.candidate)} has only {pods.ready} ready pods, and the time is over")
        return True

    # --- traffic ------------------------------------------------------------------------------------------------------------------

    def _hold_traffic(self) -> None:
        switched = self.state.phase in SWITCHED
        if self.state.phase == "promote" and self.objects.live() == Live(self.candidate, shared=False):
            return
        weight = 0 if switched else self.weight_in_force()
        owner = self.candidate if switched else self.stable
        if self.objects.select_live(owner, shared=bool(weight) and not self.state.routed):
            self.say(f"Service {self.names.service} was changed by somebody: set back to {owner or 'no pods'}, weight {weight} %")
        if self.state.routed:
            self._hold_route(weight)

    def _hold_route(self, weight: int) -> None:
        try:
            if self.objects.weigh(weight):
                self.say(f"HTTPRoute {self.names.route} was changed by somebody: set back to {weight} %")
        except MissingObjectError:
            if weight:
                raise
        if weight:
            self.select_preview(self.candidate)


def _ready(deployment: Json | None) -> int:
    return ((deployment or {}).get("status") or {}).get("readyReplicas", 0)
