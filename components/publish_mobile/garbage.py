"""What of mobile/ nobody needs any more, and its removal. Releases are kept, and bring everything back if they are published again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from components.core.channel import STABLE, Channel, read_stored_channel
from components.core.errors import DataError
from components.core.release import read_release
from components.core.stores import Store
from components.publish_mobile.collection import LEASE, Collection
from components.publish_mobile.history import HistoryEntry, channels_with_history, committed, read_history
from components.publish_mobile.version import MobileVersion, version_name, version_of
from serving.rollout.state import read_rollout, utc_now

_CHANNELS, _BLOBS, _VERSIONS = "channels/", "mobile/blobs/", "mobile/versions/"


@dataclass(frozen=True)
class Window:
    """How much of the past is kept for devices that read a channel a while ago and are about to download what it named."""

    publications: int = 5
    """The last ones that took effect."""
    days: float = 7.0
    """Whatever was current within so many days."""


_WINDOW = Window()


@dataclass(frozen=True)
class Garbage:
    """What a collection found."""

    kept: dict[str, str]
    """Release → why it is kept."""
    versions: list[str]
    """Version records that nobody needs."""
    blobs: list[str]
    """Files that no kept record names."""

    def names(self) -> list[str]:
        """What goes, in the order in which it goes: no record outlives its files."""
        return [*self.versions, *self.blobs]


def find_garbage(store: Store, window: Window = _WINDOW, tick: Callable[[], None] = lambda: None) -> Garbage:
    """What could be removed now; removes nothing. `tick` is called between the pieces of the work."""
    # What is listed before the history is read can't be younger than what the history says.
    versions, blobs = list(store.list(_VERSIONS)), list(store.list(_BLOBS))
    kept = _kept(store, window)
    needed = {version_name(release) for release in kept}
    named = _named_by_channels(store)
    for release in kept:
        tick()
        named |= set(_files(store, release))
    return Garbage(kept, [name for name in versions if name not in needed], [name for name in blobs if name not in named])


def collect_garbage(store: Store, window: Window = _WINDOW, lease: float = LEASE) -> Garbage:
    """Remove what nobody needs; what was removed. Publishers may be at work meanwhile.

    Raises `ConflictError` if another collection is under way, or took this one over.
    """
    collection = Collection(store, lease)
    try:
        garbage = find_garbage(store, window, collection.still_mine)
        for name in garbage.names():
            collection.still_mine()
            store.delete(name)
    finally:
        collection.end()
    return garbage


def _kept(store: Store, window: Window) -> dict[str, str]:
    # The history before the channels: whoever published between the two is found in one of them.
    histories = {name: read_history(store, name) for name in sorted({STABLE} | channels_with_history(store))}
    kept: dict[str, str] = {}
    past = [
        each for name, entries in histories.items() for each in (*_pending(store, name, entries), *_recent(store, name, entries, window))
    ]
    for release, why in [*_current(store), *_rolling(store), *past]:
        if release:
            kept.setdefault(release, why)
    return kept


def _channels(store: Store) -> Iterator[tuple[str, Channel]]:
    for name in store.list(_CHANNELS):
        channel = name.removeprefix(_CHANNELS).removesuffix(".json")
        found = read_stored_channel(store, channel)
        if found is not None:
            yield channel, found.channel


def _current(store: Store) -> Iterator[tuple[str, str]]:
    for name, channel in _channels(store):
        yield channel.release, f"the channel {name} names it"
        if channel.fallback:
            yield channel.fallback.release, f"the channel {name} names it as fallback"


def _pending(store: Store, channel: str, entries: Sequence[HistoryEntry]) -> Iterator[tuple[str, str]]:
    found = read_stored_channel(store, channel)
    sequence = found.channel.sequence if found else 0
    for entry in entries:
        if entry.sequence > sequence:
            why = f"sequence {entry.sequence} of {channel} is being published"
            yield from ((entry.release, why), (entry.fallback, why))


def _rolling(store: Store) -> Iterator[tuple[str, str]]:
    rollout = read_rollout(store)
    if rollout is not None and rollout[0].is_alive(utc_now()):
        yield rollout[0].release, "its cloud half is being rolled out"


def _recent(store: Store, channel: str, entries: list[HistoryEntry], window: Window) -> Iterator[tuple[str, str]]:
    """Newest first: an entry was current until the one before it in the list came."""
    found = read_stored_channel(store, channel)
    chain = committed(entries, found.channel if found else None)
    oldest = datetime.now(UTC) - timedelta(days=window.days)
    for number, entry in enumerate(chain):
        until = datetime.fromisoformat(chain[number - 1].at) if number else None
        if number < window.publications or (until is not None and until > oldest):
            why = f"sequence {entry.sequence} of {channel} was current not long ago"
            yield from ((entry.release, why), (entry.fallback, why))


def _named_by_channels(store: Store) -> set[str]:
    halves = [half for _, channel in _channels(store) for half in (channel, channel.fallback) if half]
    pointers = [pointer for half in halves for pointer in (half.mobile, half.mobile.selftest) if pointer]
    return {pointer.blob for pointer in pointers}


def _files(store: Store, release: str) -> list[str]:
    record = store.find(version_name(release))
    with suppress(ValidationError):
        if record is not None:
            return MobileVersion.model_validate_json(record.data).blobs()
    # A record that is about to be written, or of an older schema: its publisher may have put the files already.
    with suppress(DataError):
        return version_of(store, read_release(store, release)).blobs()
    return []
