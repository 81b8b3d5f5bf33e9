"""Whether everything that the channel promises is there, bit for bit."""

from components.core.channel import STABLE, UNSIGNED_V1, BlobPointer, Channel, StoredChannel, channel_name, read_stored_channel
from components.core.digest import sha256_bytes
from components.core.envelope import trusted_signatures
from components.core.errors import DataError, UsageError
from components.core.release import Release, read_release, verify_release
from components.core.stores import Store
from components.publish_mobile.history import HistoryEntry, committed, history_name, read_history
from components.publish_mobile.publication import channel_of, cloud_half
from components.publish_mobile.signing import own_keyring
from components.publish_mobile.version import MobileVersion, version_name, version_of


def verify_store(store: Store) -> list[str]:
    """Every difference between each channel, its signatures, history, release, blobs and version records; empty if there is none.

    A store without the channel `stable` has one difference: nothing is published. Malformed files are differences, not errors. Signatures
    by keys that are not known here are no difference.
    """
    others = {name.removeprefix("channels/").removesuffix(".json") for name in store.list("channels/")} - {STABLE}
    return [difference for name in (STABLE, *sorted(others)) for difference in _verify(store, name)]


def _verify(store: Store, name: str) -> list[str]:
    try:
        found = read_stored_channel(store, name)
        if found is None:
            return [f"{channel_name(name)}: missing (nothing is published)"]
        channel, entries = found.channel, read_history(store, name)
        if channel.channel != name:
            return [f"{channel_name(name)}: is the channel {channel.channel}"]
        release = read_release(store, channel.release)
        pieces = [
            _signatures(found),
            _history(entries, channel),
            verify_release(store, release.id),
            _channel(store, channel, entries, release),
        ]
        return [difference for piece in pieces for difference in piece]
    except (DataError, UsageError) as error:
        return [str(error)]


def _signatures(found: StoredChannel) -> list[str]:
    if found.envelope is None:
        return []
    keyring = own_keyring()
    good = trusted_signatures(found.envelope, keyring)
    bad = [each.keyid for each in found.envelope.signatures if keyring.find(each.keyid) and each.keyid not in good]
    return [f"{channel_name(found.channel.channel)}: the signature of key {key} does not fit the manifest" for key in bad]


def _history(entries: list[HistoryEntry], channel: Channel) -> list[str]:
    expected = range(1, len(entries) + 1)
    at = channel.channel
    gaps = [f"{history_name(n, at)}: missing" for n in expected if n not in {entry.sequence for entry in entries}]
    chain = committed(entries, channel)
    if not chain:
        return [*gaps, f"{history_name(channel.sequence, at)}: missing, though the channel names it"]
    if chain[-1].after != 0:
        gaps.append(f"{history_name(chain[-1].after, at)}: missing, though {history_name(chain[-1].sequence, at)} comes after it")
    return gaps


def _channel(store: Store, channel: Channel, entries: list[HistoryEntry], release: Release) -> list[str]:
    entry = next((e for e in entries if e.sequence == channel.sequence), None)
    fallback = version_of(store, read_release(store, entry.fallback)) if entry and entry.fallback else None
    version = version_of(store, release)
    differences = _blobs(store, channel) + _previous(store, channel)
    if channel.schema_ == UNSIGNED_V1:
        return differences
    if entry:
        # Servers follow stable alone: what another channel says of them is of the time when it was published.
        cloud = cloud_half(release) if channel.channel == STABLE else channel.cloud
        differences += _same(channel_name(channel.channel), channel, channel_of(release, version, entry, fallback, cloud))
    for each in (version, fallback):
        differences += _record(store, each) if each else []
    return differences


def _record(store: Store, version: MobileVersion) -> list[str]:
    name = version_name(version.release)
    record = store.find(name)
    if record is not None and record.data == version.to_json():
        return []
    return [f"{name}: {'missing' if record is None else 'differs from the release'}"]


def _same(name: str, found: Channel, expected: Channel) -> list[str]:
    left, right = found.model_dump(), expected.model_dump()
    return [f"{name}: {key} is {left[key]}, expected {right[key]}" for key in left if left[key] != right[key]]


def _blobs(store: Store, channel: Channel) -> list[str]:
    mobiles = [channel.mobile, *([channel.fallback.mobile] if channel.fallback else [])]
    pointers = [pointer for mobile in mobiles for pointer in (mobile, mobile.selftest) if pointer]
    return [difference for pointer in pointers for difference in _blob(store, pointer)]


def _blob(store: Store, pointer: BlobPointer) -> list[str]:
    blob = store.find(pointer.blob)
    if blob is None:
        return [f"{pointer.blob}: missing"]
    digest = sha256_bytes(blob.data)
    return [] if digest == pointer.sha256 else [f"{pointer.blob}: sha256 {digest}, expected {pointer.sha256}"]


def _previous(store: Store, channel: Channel) -> list[str]:
    if not channel.previous:
        return []
    try:
        read_release(store, channel.previous)
    except DataError as error:
        return [f"{channel_name(channel.channel)}: an undo would fail: {error}"]
    return []
