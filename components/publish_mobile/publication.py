"""Publication and undo as writes to a store, in the one order that never shows half a pair.

    mobile/blobs/<sha256>.* → mobile/versions/<release>.json → history/<sequence>.json → channels/stable.json (compare-and-swap)

`stable` is the channel of the pair: servers follow it too. Another channel, `beta` for example, moves its mobile half alone, in a history
of its own, and its devices ask the cloud model that is live (docs/decisions/0013).

All but the last are put-if-absent of content that nobody reads before the channel names it: a process killed between any two leaves
nothing to clean, and the next run of the same intent continues where it stopped. The history's entry also tells a collection of garbage
that its release is about to be named (`components.publish_mobile.collection`).
"""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from components.core.channel import (
    STABLE,
    Channel,
    CloudPointer,
    Fallback,
    StoredChannel,
    channel_name,
    read_channel,
    read_stored_channel,
)
from components.core.errors import StaleError, UsageError
from components.core.release import Release, read_release
from components.core.staging import BASIS, EVERYONE, Staging
from components.core.staging import basis_points as percent_to_basis_points
from components.core.stores import Store
from components.publish_mobile.collection import nothing_is_collected
from components.publish_mobile.history import HistoryEntry, append_entry, committed, read_history
from components.publish_mobile.signing import Signing, find_signing
from components.publish_mobile.version import MobileVersion, keep_version, put_version

PERCENT_VARIABLE = "DUAL_PUBLISH_MOBILE__PERCENT"
Action = Literal["publish", "undo", "widen", "pause", "resume", "sign"]
_NO_CLOUD = "no cloud model is live that devices of another channel could ask"


def publish_release(
    store: Store,
    release_id: str,
    *,
    run_id: str = "",
    after: int | None = None,
    basis_points: int | None = None,
    signing: Signing | None = None,
    channel: str = STABLE,
) -> Channel:
    """Make a release the current pair; returns the channel. A release that is current already is left alone.

    With fewer `basis_points` than all, only that share of the installations takes the mobile half, and the others use what everybody had
    before; the cloud half is everybody's (docs/decisions/0009). None: what $DUAL_PUBLISH_MOBILE__PERCENT says, else all. `after` is the
    channel sequence that the caller's checks rest on (0: no channel yet). Raises `StaleError` if the channel has moved on, `DataError` if
    the release or its .tflite is missing or damaged, or the channel is not this publisher's, `UsageError` if there is no key to sign with,
    or if another `channel` than stable is to get a release whose labels the live cloud model does not have.
    """
    release = read_release(store, release_id)
    found = read_stored_channel(store, channel)
    if found and found.channel.release == release_id:
        return found.channel
    sequence = found.channel.sequence if found else 0
    if after is not None and after != sequence:
        raise _overtaken(store, release_id, channel)
    points = _asked_share() if basis_points is None else basis_points
    staging = EVERYONE if points >= BASIS else Staging(basis_points=points, salt=release_id)
    fallback = _last_complete(found.channel) if found and points < BASIS else ""
    if fallback:
        _require_same_labels(release, read_release(store, fallback))
    _require_cloud(store, release, channel)
    wanted = _entry(
        "publish",
        release_id,
        channel=channel,
        after=sequence,
        previous=found.channel.release if found else "",
        fallback=fallback,
        staging=staging,
        run_id=run_id,
    )
    return commit(store, release, wanted, found, signing or find_signing(store))


def undo_publication(
    store: Store, reason: str, signing: Signing | None = None, *, only: str = "", channel: str = STABLE
) -> tuple[Channel, str]:
    """Make the release before the current one current again, both halves; returns the channel and the release that was left.

    The sequence goes on: the undo is a new entry. Several undos in a row go further back each time. A release that was staged comes back as
    far as it was. Raises `UsageError` if nothing was published or nothing was before, `StaleError` if somebody published meanwhile, or if
    `only` is not the current release any more.
    """
    found = require_channel(store, "there is nothing to undo", channel)
    current = found.channel
    if only and current.release != only:
        raise StaleError(f"{only} is not the current release any more", where=store.uri, fix="Look with: dual release list")
    if not current.previous:
        what = f"{current.release} is the first release: there is none before it to go back to"
        raise UsageError(what, where=store.uri, fix="See the published releases with: dual release list")
    release = read_release(store, current.previous)
    _require_cloud(store, release, channel)
    chain = committed(read_history(store, channel), current)
    before = next((entry for entry in chain[1:] if entry.release == release.id), None)
    wanted = _entry(
        "undo",
        release.id,
        channel=channel,
        after=current.sequence,
        previous=before.previous if before else "",
        fallback=before.fallback if before else "",
        staging=before.staging if before else EVERYONE,
        reason=reason,
    )
    return commit(store, release, wanted, found, signing or signing_of_change(store, found)), current.release


def change_staging(
    store: Store,
    action: Action,
    change: Callable[[Channel], Staging],
    *,
    reason: str = "",
    signing: Signing | None = None,
    channel: str = STABLE,
) -> Channel:
    """Publish the current pair again with another staging (or another signature); returns the channel.

    `change` says what the staging shall be, or raises why not. Raises `UsageError` if nothing was published, `StaleError` if somebody
    published meanwhile.
    """
    found = require_channel(store, "there is nothing to change", channel)
    current = found.channel
    staging = change(current)
    wanted = _entry(
        action,
        current.release,
        channel=channel,
        after=current.sequence,
        previous=current.previous,
        fallback=current.fallback.release if current.fallback and staging.basis_points < BASIS else "",
        staging=staging,
        reason=reason,
    )
    return commit(store, read_release(store, current.release), wanted, found, signing or signing_of_change(store, found))


def require_channel(store: Store, so: str, channel: str = STABLE) -> StoredChannel:
    """The channel; `UsageError` if nothing was published yet."""
    found = read_stored_channel(store, channel)
    if found is None:
        there, fix = ("", "dual run") if channel == STABLE else (f" in the channel {channel}", f"dual publish start --channel {channel}")
        raise UsageError(f"nothing was published{there} yet, so {so}", where=store.uri, fix=f"Publish a release first: {fix}")
    return found


def signing_of_change(store: Store, found: StoredChannel) -> Signing:
    """The keys for a change of what is published: an unsigned channel may stay unsigned, so that an undo never waits for a key."""
    return find_signing(store, stays_unsigned=not found.is_signed())


def check_signing(store: Store, *, change: bool) -> None:
    """Raise as a publication would (or with `change` an undo) if this publisher can't sign it: before anything is moved for it."""
    found = read_stored_channel(store)
    signing = signing_of_change(store, found) if found and change else find_signing(store)
    signing.check(found, read_history(store), f"{store.uri}/{channel_name()}")


def commit(store: Store, release: Release, wanted: HistoryEntry, found: StoredChannel | None, signing: Signing) -> Channel:
    """Write everything that an entry needs, the entry, and then the channel that makes it true; returns the channel.

    `found` is the channel that the entry is based on. Raises as `publish_release`.
    """
    signing.check(found, read_history(store, wanted.channel), f"{store.uri}/{channel_name(wanted.channel)}")
    fallback_release = read_release(store, wanted.fallback) if wanted.fallback else None
    version = put_version(store, release)
    fallback = put_version(store, fallback_release) if fallback_release else None
    entry = append_entry(store, wanted.model_copy(update={"keys": signing.key_ids()}))
    # From here on a collection that begins sees the entry; one that is under way may have taken what was put before.
    nothing_is_collected(store)
    keep_version(store, release, version)
    if fallback_release and fallback:
        keep_version(store, fallback_release, fallback)
    channel = channel_of(release, version, entry, fallback, _cloud_of(store, release, entry.channel))
    try:
        store.swap(channel_name(entry.channel), signing.seal(channel.to_json()).to_json(), found.generation if found else None)
    except StaleError:
        winner = read_channel(store, entry.channel)
        if winner and winner[0].sequence == entry.sequence:
            return winner[0]
        raise _overtaken(store, release.id, entry.channel) from None
    return channel


def channel_of(
    release: Release, version: MobileVersion, entry: HistoryEntry, fallback: MobileVersion | None, cloud: CloudPointer
) -> Channel:
    """The channel manifest that an entry makes true."""
    return Channel(
        channel=entry.channel,
        model=release.name,
        sequence=entry.sequence,
        release=release.id,
        previous=entry.previous,
        cloud=cloud,
        mobile=version.mobile,
        policy=version.policy,
        staging=entry.staging,
        fallback=Fallback(release=fallback.release, mobile=fallback.mobile, policy=fallback.policy) if fallback else None,
        published=entry.at,
    )


def cloud_half(release: Release) -> CloudPointer:
    """The cloud half of a pair."""
    return CloudPointer(version=release.version, path=release.cloud_folder())


def _cloud_of(store: Store, release: Release, channel: str) -> CloudPointer:
    if channel == STABLE:
        return cloud_half(release)
    return require_channel(store, _NO_CLOUD).channel.cloud


def _require_cloud(store: Store, release: Release, channel: str) -> None:
    """Devices of another channel than stable ask the live cloud model: it must speak of the same labels."""
    if channel == STABLE:
        return
    live = require_channel(store, _NO_CLOUD).channel
    if live.mobile.labels_digest != release.labels_digest:
        what = f"{release.id} has other labels than {live.release}, whose cloud model the devices of {channel} would ask"
        fix = "Publish it to the channel stable, where both halves move"
        raise UsageError(what, where=f"release {release.id}", fix=fix)


def _entry(
    action: Action,
    release: str,
    *,
    channel: str = STABLE,
    after: int,
    previous: str,
    fallback: str = "",
    staging: Staging = EVERYONE,
    run_id: str = "",
    reason: str = "",
) -> HistoryEntry:
    return HistoryEntry(
        channel=channel,
        sequence=after + 1,
        after=after,
        action=action,
        release=release,
        previous=previous,
        fallback=fallback,
        staging=staging,
        run_id=run_id,
        reason=reason,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _asked_share() -> int:
    """The share for publishers that are given no settings, such as `dual rollout`."""
    text = os.environ.get(PERCENT_VARIABLE, "100")
    try:
        return percent_to_basis_points(float(text))
    except ValueError:
        raise UsageError(f"'{text}' is no number", where=PERCENT_VARIABLE, fix="Give a percentage, for example 5") from None


def _last_complete(channel: Channel) -> str:
    """The release that everybody may use: a candidate that not everybody had yet is nobody's fallback."""
    if channel.staging.basis_points >= BASIS:
        return channel.release
    return channel.fallback.release if channel.fallback else ""


def _require_same_labels(release: Release, fallback: Release) -> None:
    if release.labels_digest == fallback.labels_digest:
        return
    what = f"{release.id} has other labels than {fallback.id}, which the rest of the devices would go on using"
    fix = "Publish it to all devices at once: all of them ask the same cloud model, which knows the new labels only"
    raise UsageError(what, where=f"release {release.id}", fix=fix)


def _overtaken(store: Store, release_id: str, channel: str) -> StaleError:
    found = read_channel(store, channel)
    now = f"release {found[0].release} (sequence {found[0].sequence})" if found else "nothing"
    what = f"the channel moved on while {release_id} was being checked; it names {now}"
    return StaleError(
        what, where=f"{store.uri}/{channel_name(channel)}", fix="Run the pipeline again: the checks must rest on what is current"
    )
