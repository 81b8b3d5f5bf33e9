"""Whether everything that the channel promises is there, bit for bit."""

from components.core.channel import Channel, channel_name, read_channel
from components.core.digest import sha256_bytes
from components.core.errors import DataError
from components.core.release import Release, read_release, verify_release
from components.core.stores import Store
from components.publish_mobile.history import HistoryEntry, committed, history_name, read_history
from components.publish_mobile.publication import channel_of, version_name, version_of


def verify_store(store: Store) -> list[str]:
    """Every difference between the channel, its history, its release, the blob and the version record; empty if there is none.

    A store without a channel has one difference: nothing is published. Malformed files are differences, not errors.
    """
    try:
        found = read_channel(store)
        if found is None:
            return [f"{channel_name()}: missing (nothing is published)"]
        entries = read_history(store)
        release = read_release(store, found[0].release)
        return [*_history(entries, found[0]), *verify_release(store, release.id), *_channel(store, found[0], entries, release)]
    except DataError as error:
        return [str(error)]


def _history(entries: list[HistoryEntry], channel: Channel) -> list[str]:
    expected = range(1, len(entries) + 1)
    gaps = [f"{history_name(n)}: missing" for n in expected if n not in {entry.sequence for entry in entries}]
    chain = committed(entries, channel)
    if not chain:
        return [*gaps, f"{history_name(channel.sequence)}: missing, though the channel names it"]
    if chain[-1].after != 0:
        gaps.append(f"{history_name(chain[-1].after)}: missing, though {history_name(chain[-1].sequence)} comes after it")
    return gaps


def _channel(store: Store, channel: Channel, entries: list[HistoryEntry], release: Release) -> list[str]:
    entry = next((e for e in entries if e.sequence == channel.sequence), None)
    version = version_of(release)
    differences = _same(channel_name(), channel, channel_of(release, version, entry)) if entry else []
    record = store.find(version_name(release.id))
    if record is None or record.data != version.to_json():
        differences.append(f"{version_name(release.id)}: {'missing' if record is None else 'differs from the release'}")
    return differences + _blob(store, channel) + _previous(store, channel)


def _same(name: str, found: Channel, expected: Channel) -> list[str]:
    left, right = found.model_dump(), expected.model_dump()
    return [f"{name}: {key} is {left[key]}, expected {right[key]}" for key in left if left[key] != right[key]]


def _blob(store: Store, channel: Channel) -> list[str]:
    blob = store.find(channel.mobile.blob)
    if blob is None:
        return [f"{channel.mobile.blob}: missing"]
    digest = sha256_bytes(blob.data)
    return [] if digest == channel.mobile.sha256 else [f"{channel.mobile.blob}: sha256 {digest}, expected {channel.mobile.sha256}"]


def _previous(store: Store, channel: Channel) -> list[str]:
    if not channel.previous:
        return []
    try:
        read_release(store, channel.previous)
    except DataError as error:
        return [f"{channel_name()}: an undo would fail: {error}"]
    return []
