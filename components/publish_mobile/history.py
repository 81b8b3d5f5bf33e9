"""`history/<sequence>.json`: append-only, one entry per publication and undo, written before the channel that makes it true.

A channel other than stable has its own, `history-<channel>/<sequence>.json`.

Each entry names the sequence `after` which it comes. The committed entries are those on the chain from the channel's sequence back
to 0; an entry beside the chain belongs to a publisher that lost a race or died before its swap, and never took effect.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.core.channel import STABLE, Channel
from components.core.errors import ConflictError, DataError
from components.core.staging import EVERYONE, Staging
from components.core.stores import Store, join

_FOLDER = "history"
_ATTEMPTS = 100


class HistoryEntry(BaseModel):
    """The content of one history file."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["dual.history/v1"] = Field(default="dual.history/v1", alias="schema")
    channel: str = STABLE
    sequence: int = Field(ge=1)
    after: int = Field(ge=0)
    """The sequence of the channel that this entry was based on; 0 for the first publication."""
    action: Literal["publish", "undo", "widen", "pause", "resume", "sign"]
    release: str
    """The release that becomes, or stays, current."""
    previous: str = ""
    """Where an undo of this entry goes."""
    fallback: str = ""
    """The release that installations outside of the percentage use; empty if all are inside."""
    staging: Staging = EVERYONE
    keys: list[str] = []
    """Ids of the keys that its writer signs with; empty if it publishes unsigned."""
    reason: str = ""
    run_id: str = ""
    at: str
    """UTC, ISO 8601."""

    def same_intent(self, other: "HistoryEntry") -> bool:
        """Whether both ask for the same change of the same channel state."""
        return self._intent() == other._intent()

    def _intent(self) -> tuple[int, str, str, str, Staging, bool]:
        # Not the keys themselves: during a rotation another publisher may hold more of them, and signs all the same.
        return (self.after, self.action, self.release, self.fallback, self.staging, bool(self.keys))


def history_name(sequence: int, channel: str = STABLE) -> str:
    """Where an entry lies in the store."""
    return join(_folder(channel), f"{sequence:08d}.json")


def read_history(store: Store, channel: str = STABLE) -> list[HistoryEntry]:
    """Every entry of a channel by rising sequence, also those that never took effect; `DataError` if one is malformed."""
    return [_read(store, name) for name in store.list(f"{_folder(channel)}/")]


def channels_with_history(store: Store) -> set[str]:
    """Every channel that was, or was about to be, published."""
    folders = {name.partition("/")[0] for name in store.list(_FOLDER)}
    return {folder.removeprefix(f"{_FOLDER}-") if folder != _FOLDER else STABLE for folder in folders}


def _folder(channel: str) -> str:
    return _FOLDER if channel == STABLE else f"{_FOLDER}-{channel}"


def _read(store: Store, name: str) -> HistoryEntry:
    try:
        return HistoryEntry.model_validate_json(store.get(name).data)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        raise DataError(what, where=f"{store.uri}/{name}", fix="The history is append-only: restore the file from a backup") from None


def committed(entries: list[HistoryEntry], channel: Channel | None) -> list[HistoryEntry]:
    """The entries that took effect, newest first; ends early where the chain is broken (`verify_store` says so)."""
    by_sequence = {entry.sequence: entry for entry in entries}
    chain: list[HistoryEntry] = []
    sequence = channel.sequence if channel else 0
    while (entry := by_sequence.get(sequence)) is not None:
        chain.append(entry)
        # An entry can only follow an earlier one; anything else would walk in a circle.
        sequence = entry.after if entry.after < entry.sequence else 0
    return chain


def was_signed(entries: list[HistoryEntry], channel: Channel | None) -> bool:
    """Whether an entry that took effect was signed."""
    chain = committed(entries, channel)
    return any(entry.keys and (entry in chain or _has_followers(entry, entries)) for entry in entries)


def append_entry(store: Store, wanted: HistoryEntry) -> HistoryEntry:
    """Append `wanted` under the next free sequence, or take over the same intent that a dead process left behind."""
    for _ in range(_ATTEMPTS):
        entries = read_history(store, wanted.channel)
        pending = next((e for e in entries if e.same_intent(wanted) and not _has_followers(e, entries)), None)
        if pending is not None:
            return pending
        sequence = max([wanted.after, *(entry.sequence for entry in entries)]) + 1
        entry = wanted.model_copy(update={"sequence": sequence})
        if store.put_if_absent(history_name(sequence, wanted.channel), entry.model_dump_json(by_alias=True, indent=1).encode()):
            return entry
    raise ConflictError(
        "other publishers took every next sequence", where=f"{store.uri}/{_folder(wanted.channel)}", fix="Run again when they are done"
    )


def _has_followers(entry: HistoryEntry, entries: list[HistoryEntry]) -> bool:
    # Then it took effect once: sequences must not be used twice, even if the channel's file was deleted.
    return any(other.after >= entry.sequence for other in entries)
