"""What must hold at every moment of a rollout, read from the objects. Each check gives sentences; none if all is well."""

from collections.abc import Iterator
from dataclasses import dataclass

from serving.rollout.cluster.api import Api, Json
from serving.rollout.cluster.names import REVISION
from serving.rollout.cluster.objects import Live, live_of
from serving.rollout.cluster.state import ClusterRollout
from tests.crash.cluster_site import REPLICAS_WANTED, FileChannel, deployments_of


@dataclass(frozen=True)
class View:
    """One moment."""

    live: Live
    wanted: dict[str, int]
    """Revision → pods that its Deployment wants."""
    ready: dict[str, int]
    promoted: str
    """The release that the channel names."""
    state: ClusterRollout | None
    weight: int
    """What the route gives the preview Service, in percent; 0 without a route."""
    previewed: str
    """The revision that the preview Service selects, if the route gives it weight."""

    def is_recreated(self) -> bool:
        """Whether a strategy is at work that may leave a gap."""
        return self.state is not None and self.state.plan.strategy == "recreate" and not self.state.is_over()

    def candidates(self) -> set[str]:
        """What may have weight beside the stable revision."""
        if self.state is None:
            return set()
        found, last = {self.state.candidate.revision}, self.state.history[-1] if self.state.history else None
        if self.state.phase == "prepare" and last and last.outcome == "superseded":
            # What was superseded keeps its weight until the new run takes it away, which is the first thing that it does.
            found.add(last.revision.revision)
        return found


def violations(api: Api, channel: FileChannel, state: ClusterRollout | None) -> list[str]:
    """Every invariant that does not hold at this moment."""
    deployments = {each["metadata"]["labels"][REVISION]: each for each in deployments_of(api)}
    owned = [f"{each['metadata']['name']} has an owner" for each in deployments.values() if each["metadata"].get("ownerReferences")]
    view = _view(api, deployments, channel.release(), state)
    return [*_serves(view), *_shares(view), *_weighs(view), *_has_room(view), *owned]


def _view(api: Api, deployments: dict[str, Json], promoted: str, state: ClusterRollout | None) -> View:
    weight = _weight(api) if state is not None and state.routed else 0
    return View(
        live=live_of(api.get("Service", "classifier")),
        wanted={revision: each["spec"].get("replicas", 0) for revision, each in deployments.items()},
        ready={revision: (each.get("status") or {}).get("readyReplicas", 0) for revision, each in deployments.items()},
        promoted=promoted,
        state=state,
        weight=weight,
        previewed=live_of(api.get("Service", "classifier-preview")).stable if weight else "",
    )


def _weight(api: Api) -> int:
    rules = api.get("HTTPRoute", "classifier")["spec"].get("rules") or [{}]
    found = {each["name"]: each["weight"] for rule in rules for each in rule.get("backendRefs") or []}
    return found.get("classifier-preview", 0)


def _serves(view: View) -> Iterator[str]:
    """Live traffic has enough ready pods, and what is promoted keeps its own."""
    live = view.live
    if view.is_recreated() or not (view.promoted or live.stable):
        return
    serving = sum(view.ready.values()) if live.shared else view.ready.get(live.stable, 0)
    if serving < REPLICAS_WANTED:
        yield f"live traffic goes to {serving} ready pods ({live})"
    stable = next((revision for revision in view.wanted if view.promoted and revision.startswith(view.promoted)), "")
    if stable and not live.shared and view.wanted[stable] < REPLICAS_WANTED:
        yield f"the promoted revision {stable} has {view.wanted[stable]} pods"


def _shares(view: View) -> Iterator[str]:
    """Where all pods share the live Service, they are those of the rollout, and the candidate has some."""
    if not view.live.shared or view.state is None:
        return
    for revision, count in view.wanted.items():
        if count and revision not in {view.live.stable, *view.candidates()}:
            yield f"{revision} gets live traffic and is no part of the rollout"
    if not any(view.ready.get(candidate) for candidate in view.candidates()):
        yield "weight without a ready candidate"
    if view.state.is_over():
        yield f"the rollout is over ({view.state.phase}) and weight is left"
    if view.state.routed:
        yield "the live Service is shared although a route makes the weights"


def _weighs(view: View) -> Iterator[str]:
    """Where a route gives the candidate weight, it is the candidate's, and pods of it are ready."""
    if not view.weight or view.state is None:
        return
    if not view.ready.get(view.previewed):
        yield f"the route gives {view.weight} % to {view.previewed}, of which no pod is ready"
    if view.previewed not in view.candidates():
        yield f"the route gives {view.weight} % to {view.previewed}, which is no part of the rollout"
    if view.state.is_over():
        yield f"the rollout is over ({view.state.phase}) and the route gives {view.weight} %"


def _has_room(view: View) -> Iterator[str]:
    """With strategy recreate there is room for one revision's pods."""
    if view.is_recreated() and len(both := [revision for revision, count in view.wanted.items() if count]) > 1:
        yield f"pods of {' and '.join(both)} are wanted at a time where there is room for one of them"
