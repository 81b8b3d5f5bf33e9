"""Publishers and a collection of garbage in one store: neither may take away what the other is about to name.

A publisher appends its history entry, and only then looks whether a collection is under way; a collection writes its mark, and only then
reads the history. So at least one of them sees the other, whatever the order:

- the publisher sees the mark: it waits until the collection is over, and writes again what was taken;
- the collection sees the entry: it keeps what the entry's releases need.

The mark is a lease without clocks: its holder changes it every few seconds, and whoever sees it unchanged for `LEASE` seconds of his own
time takes it away by compare-and-swap, upon which its holder stops before the next deletion. What remains is a holder that is halted
between its last look and one deletion for longer than that: object stores have no conditional deletion that all of them honour.
"""

import time
from collections.abc import Callable
from typing import Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.core.errors import ConflictError, DataError, StaleError
from components.core.stores import Store, join

MARK = join("mobile", "collection.json")
LEASE = 30.0
"""Seconds without a sign of life after which a collection counts as dead."""
PATIENCE = 300.0
"""Seconds that a publisher waits for a living one."""
_LOOK = 0.1


class Mark(BaseModel):
    """The content of mobile/collection.json."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["dual.collection/v1"] = Field(default="dual.collection/v1", alias="schema")
    owner: str
    beat: int = 0
    """Grows while the owner is at work."""
    done: bool = False

    def to_json(self) -> bytes:
        """The bytes of the file."""
        return self.model_dump_json(by_alias=True, indent=1).encode()


class Collection:
    """The right to delete, held by one process at a time; renewed by `still_mine` before each deletion."""

    def __init__(self, store: Store, lease: float = LEASE, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the mark; waits for another collection as a publisher does, and raises `ConflictError` as it does."""
        self._store, self._lease, self._clock = store, lease, clock
        nothing_is_collected(store, lease=lease)
        found = read_mark(store)
        self._mark = Mark(owner=uuid4().hex)
        self._generation = self._swap(found[1] if found else None)

    def still_mine(self) -> None:
        """Show a sign of life if the last one is old; `ConflictError` if somebody has taken the mark away."""
        if self._clock() - self._beaten < self._lease / 3:
            return
        self._mark = self._mark.model_copy(update={"beat": self._mark.beat + 1})
        self._generation = self._swap(self._generation)

    def end(self) -> None:
        """Give the mark back."""
        self._mark = self._mark.model_copy(update={"done": True})
        self._generation = self._swap(self._generation)

    def _swap(self, generation: str | None) -> str:
        # The time before the write: it may take effect at once, and others count from then.
        self._beaten = self._clock()
        try:
            return self._store.swap(MARK, self._mark.to_json(), generation)
        except StaleError:
            what = "another process has taken the collection over"
            raise ConflictError(what, where=f"{self._store.uri}/{MARK}", fix="Run `dual publish gc` again") from None


def nothing_is_collected(store: Store, *, lease: float = LEASE, patience: float = PATIENCE) -> None:
    """Return when no collection is under way: at once as a rule, else when it is over, or dead and its mark taken away.

    Raises `ConflictError` after `patience` seconds.
    """
    began = seen_at = time.monotonic()
    seen = ""
    while (found := read_mark(store)) is not None and not found[0].done:
        mark, generation = found
        now = time.monotonic()
        if generation != seen:
            seen, seen_at = generation, now
        elif now - seen_at > lease:
            _take_away(store, mark, generation)
        if now - began > patience:
            fix = "Run again when it is done (`dual publish gc` says what it does)"
            raise ConflictError("a collection of garbage is under way", where=f"{store.uri}/{MARK}", fix=fix)
        time.sleep(_LOOK)


def read_mark(store: Store) -> tuple[Mark, str] | None:
    """The mark and its generation; None if there never was a collection. `DataError` if it is malformed."""
    found = store.find(MARK)
    if found is None:
        return None
    try:
        return Mark.model_validate_json(found.data), found.generation
    except ValidationError:
        raise DataError(
            "is no mark of a collection", where=f"{store.uri}/{MARK}", fix="Delete the file if no `dual publish gc` runs"
        ) from None


def _take_away(store: Store, mark: Mark, generation: str) -> None:
    try:
        store.swap(MARK, mark.model_copy(update={"done": True}).to_json(), generation)
    except StaleError:
        # Its holder is alive after all, or another publisher was faster: look again.
        return
