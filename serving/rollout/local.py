"""The rollout on one machine, strategy `labels`: two versions in each running server, the label `stable` moves between them."""

from dataclasses import dataclass
from datetime import datetime

from components.core.channel import read_channel
from components.core.stores import Store
from serving.rollout.state import LOADING, read_rollout, utc_now


@dataclass(frozen=True)
class Desired:
    """What every server of a store should do now: which release each label selects, and which ones are loaded."""

    stable: str | None
    loaded: tuple[str, ...]
    canary: str | None = None
    """The candidate that is loaded beside the stable one and sees no live traffic."""

    def labels(self) -> dict[str, str]:
        """Label → release."""
        return {label: release for label, release in (("stable", self.stable), ("canary", self.canary)) if release}


def desired(store: Store, now: datetime | None = None) -> Desired:
    """What servers follow: the channel's release, or a live rollout's candidate until its deadline.

    A rollout counts only while its phase is within its deadline and the channel is still the one it started from: a candidate whose
    publication never came, or was overtaken by another, falls back by itself. `stable` is None before the first release.
    """
    found, state = read_channel(store), read_rollout(store)
    current, sequence = (found[0].release, found[0].sequence) if found else (None, 0)
    settled = Desired(current, (current,) if current else ())
    if state is None:
        return settled
    rollout = state[0]
    if rollout.sequence != sequence or rollout.release == current or not rollout.is_alive(now or utc_now()):
        return settled
    if rollout.phase in LOADING:
        return Desired(current, (*settled.loaded, rollout.release), rollout.release)
    return Desired(rollout.release, (rollout.release, *settled.loaded))
