"""Deliberate mistakes in the rollout. A harness that does not catch them proves nothing."""

from collections.abc import Callable, Sequence
from typing import Any

from serving.rollout.cluster.api import Api, Json
from serving.rollout.cluster.machine import Machine
from serving.rollout.cluster.objects import Objects
from serving.rollout.cluster.turn import Turn


def scale_down_before_the_switch() -> None:
    """The old pods end before the live Service has left them."""
    right = Objects.select_live

    def wrong(self: Objects, stable: str, *, shared: bool = False) -> bool:
        live = self.live()
        if live.stable and stable not in ("", live.stable):
            self.scale(live.stable, 0)
        return right(self, stable, shared=shared)

    Objects.select_live = wrong


def save_before_acting() -> None:
    """The next phase is saved before the present one has been carried out."""

    def early(phase: str, following: str) -> None:
        right: Any = getattr(Machine, f"_{phase}")

        def wrong(self: Machine) -> None:
            state = self.state
            self.save(following, "too early")  # pyright: ignore[reportArgumentType]
            self.state = state
            right(self)

        setattr(Machine, f"_{phase}", wrong)

    early("aborting", "aborted")
    early("promote", "post_analysis")


def no_epoch_test() -> None:
    """Writes test no stamp, and nobody looks whether he was overtaken."""

    def claim(self: Objects) -> None:
        return

    def guard(self: Objects) -> None:
        return

    def patch(self: Api, kind: str, name: str, operations: Sequence[Json]) -> Json:
        kept = [each for each in operations if each["op"] != "test"]
        return right(self, kind, name, kept)

    right = Api.patch
    Objects.claim, Objects.guard, Api.patch = claim, guard, patch


def weight_before_ready() -> None:
    """Nobody waits for pods."""

    def wrong(self: Turn, revision: str, replicas: int, *, keep: bool = False) -> None:
        return

    Turn.wait_ready = wrong


def save_without_comparing() -> None:
    """The state is written over whatever is there."""
    right = Api.replace

    def wrong(self: Api, kind: str, body: Json) -> Json:
        metadata = {key: value for key, value in body["metadata"].items() if key not in ("resourceVersion", "uid")}
        return right(self, kind, {**body, "metadata": metadata})

    Api.replace = wrong


MUTANTS: dict[str, Callable[[], None]] = {
    each.__name__: each
    for each in (scale_down_before_the_switch, save_before_acting, no_epoch_test, weight_before_ready, save_without_comparing)
}
