"""Undo: the pair before the current one becomes current again, in the channel and in every running server."""

from dataclasses import dataclass

from components.core.channel import Channel
from components.core.errors import ConflictError
from components.core.stores import Store
from components.publish_mobile.publication import undo_publication
from serving.rollout.converge import converge_all
from serving.rollout.local import desired
from serving.rollout.servers import close_all, running_servers
from serving.rollout.state import read_rollout, save_rollout, utc_now


@dataclass(frozen=True)
class Undone:
    """What an undo did."""

    channel: Channel
    left: str
    """The release that was current before."""
    servers: int
    """Running servers that follow already."""
    problems: list[str]
    """Servers that could not be told at once; they follow by themselves."""


def undo_release(store: Store, reason: str, *, timeout: float = 60.0) -> Undone:
    """Go back to the release before the current one, both halves, and move the running servers there.

    The channel's swap is the commit point. Raises `UsageError` if there is nothing to go back to, `StaleError` if somebody published
    meanwhile; nothing has changed then.
    """
    channel, left = undo_publication(store, reason)
    _mark(store, left, reason)
    servers = running_servers(store)
    try:
        problems = converge_all(store, servers, desired(store), timeout)
    finally:
        close_all(servers)
    return Undone(channel, left, len(servers) - len(problems), problems)


def _mark(store: Store, left: str, reason: str) -> None:
    found = read_rollout(store)
    if found is None or found[0].release != left:
        return
    rollout = found[0].to("rolled_back", "undone: the channel names the release before", now=utc_now(), reason=reason)
    try:
        save_rollout(store, rollout, found[1])
    except ConflictError:
        # A newer rollout owns the state by now; the channel decides anyway.
        return
