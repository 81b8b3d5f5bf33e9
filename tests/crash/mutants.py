"""Deliberate mistakes in the rollout. A harness that does not catch them proves nothing."""

from collections.abc import Callable, Sequence
from typing import Any

from serving.rollout.cluster.api import Api, Json
from serving.rollout.cluster.keep import Keeper
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
        # Only the state: a Lease without a version would be refused.
        left_out = ("resourceVersion", "uid") if kind == "ConfigMap" else ()
        metadata = {key: value for key, value in body["metadata"].items() if key not in left_out}
        return right(self, kind, {**body, "metadata": metadata})

    Api.replace = wrong


def weight_is_not_taken_back() -> None:
    """The route keeps what it gives the candidate."""

    def wrong(self: Turn) -> None:
        return

    Turn.withdraw_weight = wrong


def preview_before_the_weight_is_gone() -> None:
    """The preview Service gets a new candidate while the route still gives it weight."""
    right = Turn.withdraw_weight

    def wrong(self: Turn) -> None:
        if self.state.phase == "prepare":
            self.select_preview(self.candidate)
        right(self)

    Turn.withdraw_weight = wrong


def two_at_a_time() -> None:
    """Strategy recreate starts new pods before the old ones have ended."""

    def wrong(self: Keeper, revision: str) -> None:
        return

    Keeper.end_pods = wrong


_ALL = [
    *(scale_down_before_the_switch, save_before_acting, no_epoch_test, weight_before_ready, save_without_comparing),
    *(weight_is_not_taken_back, preview_before_the_weight_is_gone, two_at_a_time),
]
MUTANTS: dict[str, Callable[[], None]] = {each.__name__: each for each in _ALL}
