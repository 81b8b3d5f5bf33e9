"""Publication and undo as writes to a store, in the one order that never shows half a pair.

    mobile/blobs/<sha256>.tflite → mobile/versions/<release>.json → history/<sequence>.json → channels/stable.json (compare-and-swap)

All but the last are put-if-absent of content that nobody reads before the channel names it: a process killed between any two leaves
nothing to clean, and the next run of the same intent continues where it stopped.
"""

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from components.core.channel import STABLE, Channel, CloudPointer, MobilePointer, channel_name, mobile_contract, read_channel
from components.core.digest import sha256_bytes
from components.core.errors import AlreadyExistsError, DataError, StaleError, UsageError
from components.core.release import MOBILE_FILE, Release, read_release
from components.core.stores import Store, join
from components.publish_mobile.history import HistoryEntry, append_entry, committed, read_history


class MobileVersion(BaseModel):
    """The content of mobile/versions/<release>.json: all that a device needs, and nothing that changes."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["dual.mobile/v1"] = Field(default="dual.mobile/v1", alias="schema")
    release: str
    mobile: MobilePointer
    policy: dict[str, JsonValue]

    def to_json(self) -> bytes:
        """The bytes of the record."""
        return self.model_dump_json(by_alias=True, indent=1).encode()


def publish_release(store: Store, release_id: str, *, run_id: str = "", after: int | None = None) -> Channel:
    """Make a release the current pair; returns the channel. A release that is current already is left alone.

    `after` is the channel sequence that the caller's checks rest on (0: no channel yet). Raises `StaleError` if the channel has moved
    on, `DataError` if the release or its .tflite is missing or damaged.
    """
    release = read_release(store, release_id)
    found = read_channel(store)
    if found and found[0].release == release_id:
        return found[0]
    sequence = found[0].sequence if found else 0
    if after is not None and after != sequence:
        raise _overtaken(store, release_id)
    previous = found[0].release if found else ""
    wanted = _entry("publish", release_id, after=sequence, previous=previous, run_id=run_id, reason="")
    return _commit(store, release, wanted, found)


def undo_publication(store: Store, reason: str) -> tuple[Channel, str]:
    """Make the release before the current one current again, both halves; returns the channel and the release that was left.

    The sequence goes on: the undo is a new entry. Several undos in a row go further back each time. Raises `UsageError` if nothing was
    published or nothing was before, `StaleError` if somebody published meanwhile.
    """
    found = read_channel(store)
    if found is None:
        raise UsageError("nothing was published yet, so there is nothing to undo", where=store.uri, fix="Publish a release first: dual run")
    channel = found[0]
    if not channel.previous:
        what = f"{channel.release} is the first release: there is none before it to go back to"
        raise UsageError(what, where=store.uri, fix="See the published releases with: dual release list")
    release = read_release(store, channel.previous)
    chain = committed(read_history(store), channel)
    before = next((entry.previous for entry in chain[1:] if entry.release == release.id), "")
    wanted = _entry("undo", release.id, after=channel.sequence, previous=before, run_id="", reason=reason)
    return _commit(store, release, wanted, found), channel.release


def _entry(action: Literal["publish", "undo"], release: str, *, after: int, previous: str, run_id: str, reason: str) -> HistoryEntry:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return HistoryEntry(
        sequence=after + 1, after=after, action=action, release=release, previous=previous, run_id=run_id, reason=reason, at=now
    )


def _commit(store: Store, release: Release, wanted: HistoryEntry, found: tuple[Channel, str] | None) -> Channel:
    version = put_version(store, release)
    entry = append_entry(store, wanted)
    channel = channel_of(release, version, entry)
    try:
        store.swap(channel_name(), channel.to_json(), found[1] if found else None)
    except StaleError:
        winner = read_channel(store)
        if winner and winner[0].sequence == entry.sequence:
            return winner[0]
        raise _overtaken(store, release.id) from None
    return channel


def channel_of(release: Release, version: MobileVersion, entry: HistoryEntry) -> Channel:
    """The channel manifest that an entry makes true."""
    return Channel(
        channel=STABLE,
        sequence=entry.sequence,
        release=release.id,
        previous=entry.previous,
        cloud=CloudPointer(version=release.version, path=release.cloud_folder()),
        mobile=version.mobile,
        policy=version.policy,
        published=entry.at,
    )


def version_of(release: Release) -> MobileVersion:
    """The version record of a release: a function of its content alone."""
    file = release.mobile_file()
    pointer = MobilePointer(
        blob=blob_name(file.sha256),
        sha256=file.sha256,
        size=file.size,
        contract=mobile_contract(release.preprocessing.mobile, len(release.labels)),
        labels=release.labels,
        labels_digest=release.labels_digest,
    )
    return MobileVersion(release=release.id, mobile=pointer, policy=release.policy)


def put_version(store: Store, release: Release) -> MobileVersion:
    """Write the blob, then the version record, each if absent; `DataError` if the release's .tflite is damaged."""
    version = version_of(release)
    _put_blob(store, release)
    name, data = version_name(release.id), version.to_json()
    if not store.put_if_absent(name, data) and store.get(name).data != data:
        what = "the version record holds something else than the release says"
        raise AlreadyExistsError(what, where=f"{store.uri}/{name}", fix="It was changed by hand: delete it and publish again")
    return version


def _put_blob(store: Store, release: Release) -> None:
    source = join(release.folder(), release.models.mobile.path, MOBILE_FILE)
    data, expected = store.get(source).data, release.mobile_file().sha256
    if (digest := sha256_bytes(data)) != expected:
        fix = "The store is damaged: look with `dual release verify`, then run the pipeline again"
        raise DataError(f"sha256 is {digest}, release.json says {expected}", where=f"{store.uri}/{source}", fix=fix)
    name = blob_name(expected)
    # A name that is a digest has one right content: anything else there is damage, and writing repairs it.
    if not store.put_if_absent(name, data) and store.get(name).data != data:
        store.put(name, data)


def blob_name(sha256: str) -> str:
    """Where a .tflite lies by its content."""
    return join("mobile", "blobs", f"{sha256}.tflite")


def version_name(release_id: str) -> str:
    """Where a release's version record lies."""
    return join("mobile", "versions", f"{release_id}.json")


def _overtaken(store: Store, release_id: str) -> StaleError:
    found = read_channel(store)
    now = f"release {found[0].release} (sequence {found[0].sequence})" if found else "nothing"
    what = f"the channel moved on while {release_id} was being checked; it names {now}"
    return StaleError(what, where=f"{store.uri}/{channel_name()}", fix="Run the pipeline again: the checks must rest on what is current")
