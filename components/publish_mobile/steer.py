"""Widening, pausing and signing what is published: the same pair under a new sequence."""

from components.core.channel import STABLE, Channel
from components.core.errors import ConflictError, UsageError
from components.core.staging import BASIS, EVERYONE, Staging
from components.core.stores import Store
from components.publish_mobile.publication import change_staging
from components.publish_mobile.signing import Signing
from serving.rollout.state import read_rollout, utc_now


def widen(store: Store, basis_points: int, *, reason: str = "", signing: Signing | None = None, channel: str = STABLE) -> Channel:
    """Give the candidate to more installations; whoever has it keeps it. `UsageError` if it is not more, or the rollout is paused."""

    def change(current: Channel) -> Staging:
        _require_running(current, store)
        if basis_points <= current.staging.basis_points:
            what = f"{current.release} is at {current.staging.percent()} already, and a percentage only grows"
            raise UsageError(what, where=store.uri, fix="Give more, or take it back from everybody with: dual publish undo")
        wider = current.staging.model_copy(update={"basis_points": basis_points})
        return EVERYONE if basis_points >= BASIS else wider

    _require_calm(store, channel)
    return change_staging(store, "widen", change, reason=reason, signing=signing, channel=channel)


def pause(store: Store, *, reason: str = "", signing: Signing | None = None, channel: str = STABLE) -> Channel:
    """Give the candidate to nobody who has not got it; `UsageError` if everybody is to have it, or it is paused already."""

    def change(current: Channel) -> Staging:
        _require_running(current, store)
        return current.staging.model_copy(update={"paused": True})

    _require_calm(store, channel)
    return change_staging(store, "pause", change, reason=reason, signing=signing, channel=channel)


def resume(store: Store, *, reason: str = "", signing: Signing | None = None, channel: str = STABLE) -> Channel:
    """Go on after a pause; `UsageError` if there is none."""

    def change(current: Channel) -> Staging:
        if not current.staging.paused:
            raise UsageError(f"{current.release} is not paused", where=store.uri, fix="See: dual publish status")
        return current.staging.model_copy(update={"paused": False})

    _require_calm(store, channel)
    return change_staging(store, "resume", change, reason=reason, signing=signing, channel=channel)


def sign(store: Store, *, reason: str = "", signing: Signing | None = None, channel: str = STABLE) -> Channel:
    """Publish what is current once more, with the keys and in the format of now: after a rotation, or for a store of an older version."""
    _require_calm(store, channel)
    return change_staging(store, "sign", lambda current: current.staging, reason=reason, signing=signing, channel=channel)


def _require_running(channel: Channel, store: Store) -> None:
    if channel.staging.basis_points >= BASIS:
        what = f"{channel.release} is published to all devices"
        raise UsageError(what, where=store.uri, fix="Take it back with `dual publish undo`, or start another release")
    if channel.staging.paused:
        raise UsageError(f"{channel.release} is paused", where=store.uri, fix="Go on with: dual publish resume")


def _require_calm(store: Store, channel: str) -> None:
    """A cloud rollout rests on the sequence of stable: a change now would void it, and its run would have to begin anew."""
    if channel != STABLE:
        return
    rollout = read_rollout(store)
    if rollout is not None and rollout[0].is_alive(utc_now()):
        what = f"the cloud half of {rollout[0].release} is being rolled out until {rollout[0].deadline}"
        raise ConflictError(what, where=store.uri, fix="Change the percentage when that run is over")
