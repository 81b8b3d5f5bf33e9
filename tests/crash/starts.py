"""Points of a rollout at which a case begins; each is brought about once, and copied from then on."""

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.crash.cluster_site import RELEASES, route, ship
from tests.crash.stage import Scene, Stage

Start = Callable[[Stage], object]


def promoted(stage: Stage) -> None:
    """Release a is promoted and nothing is in progress."""
    ship(stage.api, stage.channel, "a", "canary", run_id="r0")


def promoted_by_route(stage: Stage) -> None:
    """The same beside an HTTPRoute."""
    stage.api.create("HTTPRoute", route())
    promoted(stage)


def followed(stage: Stage) -> None:
    """Release b was promoted after a, whose pods are gone."""
    promoted(stage)
    ship(stage.api, stage.channel, "b", "blue-green", run_id="r1")


def draining(stage: Stage) -> None:
    """Release b is published, and the pods of a are still up; the process that waited for them is gone."""
    promoted(stage)
    stand(stage, "drain")
    stage.channel.publish(RELEASES["b"])


def under_way(stage: Stage, begins: Start, phase: str, **plan: Any) -> None:
    """Release b had come to a phase when its process went."""
    begins(stage)
    stand(stage, phase, progress_deadline=120.0, **plan)


def stand(stage: Stage, phase: str, release: str = "b", **plan: Any) -> None:
    """A rollout whose process was killed as soon as it had saved a phase."""
    machine = stage.machine(release, Scene(), run_id="gone", **plan)
    machine.objects.claim()
    while machine.state.phase != phase:
        getattr(machine, f"_{machine.state.phase}")()


STARTS: dict[str, Start] = {
    "promoted": promoted,
    "promoted by route": promoted_by_route,
    "followed": followed,
    "draining": draining,
    "canary under way": partial(under_way, begins=promoted, phase="analyze", strategy="canary"),
    "canary by route under way": partial(under_way, begins=promoted_by_route, phase="analyze", strategy="canary"),
    "switched": partial(under_way, begins=promoted, phase="post_analysis", strategy="blue-green"),
    "recreate switched": partial(under_way, begins=promoted, phase="post_analysis", strategy="recreate"),
}
"""Besides `nothing`: the applied objects, and no rollout ever."""
