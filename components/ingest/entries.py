"""What is remembered of every usable image, in rows of 158 bytes: Python objects for the same would take five times as much."""

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from components.core.examples import SPLITS, Split
from components.ingest.hashing import LOOK_BYTES

Rows = NDArray[np.int64]
"""Row numbers."""
_FORMATS = ("jpeg", "png")
NO_SPLIT = -1
_AS_FOUND = -1
_DIGEST = 32
_PACK = struct.Struct(f"<32s{LOOK_BYTES}sqqqiiiiibb")
_ROW = np.dtype(
    [
        ("original", ">u8", (4,)),
        ("look", "u1", (LOOK_BYTES,)),
        ("key_end", "<i8"),
        ("offset", "<i8"),
        ("length", "<i8"),
        ("height", "<i4"),
        ("width", "<i4"),
        ("label", "<i4"),
        ("slices", "<i4"),
        ("stored", "<i4"),
        ("format", "i1"),
        ("split", "i1"),
    ]
)


@dataclass(slots=True)
class Entry:
    """One usable image; its bytes lie in the spool at `offset`. `split` None: to be decided."""

    key: str
    label: str
    split: Split | None
    slices: str
    original: bytes
    """SHA-256 of the file as it was found."""
    stored: bytes
    """SHA-256 of the bytes to store."""
    look: bytes
    """See `looks`."""
    offset: int
    length: int
    format: str
    height: int
    width: int


class _Names:
    """Texts that come again and again, by number."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        number = self._numbers.setdefault(text, len(self.texts))
        if number == len(self.texts):
            self.texts.append(text)
        return number


class Entries:
    """Grows entry by entry; then read by row number, or column by column. The split of a row can be changed."""

    def __init__(self) -> None:
        """Empty."""
        self._packed, self._keys, self._stored = bytearray(), bytearray(), bytearray()
        self._labels, self._slices = _Names(), _Names()
        self._table: NDArray[np.void] | None = None
        self._ranks: Rows | None = None

    def __len__(self) -> int:
        return len(self._packed) // _PACK.size

    def add(self, entry: Entry) -> None:
        """Append one; not after a column was read."""
        self._keys += entry.key.encode()
        self._packed += _PACK.pack(
            entry.original,
            entry.look,
            len(self._keys),
            entry.offset,
            entry.length,
            entry.height,
            entry.width,
            self._labels.number(entry.label),
            self._slices.number(entry.slices),
            self._stored_number(entry),
            _FORMATS.index(entry.format),
            SPLITS.index(entry.split) if entry.split else NO_SPLIT,
        )

    def _stored_number(self, entry: Entry) -> int:
        """Which of the digests that differ from the file's is that of the stored bytes."""
        if entry.stored == entry.original:
            return _AS_FOUND
        self._stored += entry.stored
        return len(self._stored) // _DIGEST - 1

    def __getitem__(self, row: int) -> Entry:
        original, look, _, offset, length, height, width, label, slices, stored, kind, split = _PACK.unpack_from(
            self._packed, row * _PACK.size
        )
        return Entry(
            key=self.key(row),
            label=self._labels.texts[label],
            split=SPLITS[split] if split != NO_SPLIT else None,
            slices=self._slices.texts[slices],
            original=original,
            stored=original if stored == _AS_FOUND else bytes(self._stored[stored * _DIGEST : (stored + 1) * _DIGEST]),
            look=look,
            offset=offset,
            length=length,
            format=_FORMATS[kind],
            height=height,
            width=width,
        )

    def key(self, row: int) -> str:
        """The key of a row."""
        return self.key_bytes(row).decode()

    def key_bytes(self, row: int) -> bytes:
        """The key of a row in UTF-8, which sorts as the text does."""
        ends = self.table["key_end"]
        return bytes(memoryview(self._keys)[int(ends[row - 1]) if row else 0 : int(ends[row])])

    @property
    def table(self) -> NDArray[np.void]:
        """All rows as a structured array that shares their memory."""
        if self._table is None:
            self._table = np.frombuffer(self._packed, _ROW)
        return self._table

    @property
    def labels(self) -> list[str]:
        """The labels by the numbers in the column `label`, in the order in which they came."""
        return self._labels.texts

    def label_counts(self, rows: Rows) -> Counter[str]:
        """Label → how many of `rows` have it."""
        counts = np.bincount(self.table["label"][rows], minlength=len(self.labels))
        return Counter(dict(zip(self.labels, counts.tolist(), strict=True)))

    def in_split(self, rows: Rows, split: Split) -> Rows:
        """Those of `rows` that are in a split."""
        return rows[self.table["split"][rows] == SPLITS.index(split)]

    def by_key(self, rows: Rows) -> Iterator[int]:
        """`rows` in the order of their keys. Most sources come in that order, and then nothing is sorted."""
        ordered = all(before <= after for before, after in pairwise(self.key_bytes(row) for row in rows))
        return iter(rows) if ordered else iter(sorted(rows, key=self.key_bytes))

    def digest_ranks(self) -> Rows:
        """For each row the rank of its file's digest among all digests: equal files have equal ranks."""
        if self._ranks is None:
            words = self.table["original"].T.astype(np.uint64)
            order = np.lexsort(words[::-1])
            changes = (words[:, order[1:]] != words[:, order[:-1]]).any(0)
            self._ranks = np.empty(len(self), np.int64)
            self._ranks[order[:1]] = 0
            self._ranks[order[1:]] = np.cumsum(changes)
        return self._ranks
