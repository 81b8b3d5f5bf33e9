"""What every kind of input looks like to the rest of ingest: a stream of items, and what was noticed while listing them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from components.core.examples import Split

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
}


class UnreadableError(Exception):
    """An item's bytes can't be had; the message says why."""


class TooLargeError(Exception):
    """An item has more bytes than the settings allow; found before reading where the source can tell."""


@dataclass(frozen=True, slots=True)
class Item:
    """One labelled image, not read yet. `load` returns its bytes or raises `UnreadableError` or `TooLargeError`."""

    key: str
    """Unique and stable: the path below its source."""
    label: str
    load: Callable[[], bytes]
    split: Split | None = None
    slices: str = "{}"
    """JSON object column → value, sorted."""
    span: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the data that isn't as it should be, and what was done about it: fixed, skipped, kept or refused."""

    kind: str
    key: str
    detail: str = ""
    action: str = "skipped"


@dataclass
class Source:
    """An input that was opened. `items` can be iterated once, and holds no image in memory that nobody asked for."""

    items: Iterable[Item]
    kind: str
    """In words, for the report: class folders, split folders, CSV, TFRecords."""
    fingerprint: object = None
    """JSON value that changes when the input does; None if that can't be told without reading everything."""
    listing: object = None
    """JSON value that changes when items come, go or change places; None if only reading everything tells."""
    classes: list[str] = field(default_factory=list)
    """Classes that the layout promises, also those without an image."""
    total: int = 0
    """How many items there are, 0 if unknown."""
    slice_columns: list[str] = field(default_factory=list)
    spans: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    drawn: bool = False
    distinct: bool = False
    """Whether all keys are known to differ, so that nobody must remember them."""
    remote: bool = False
    """Whether reading an item means waiting for a network, which more threads than cores can do."""
