"""One pass over the examples artifact: every image is decoded once, measured, and forgotten."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from components.core.digest import sha256_bytes
from components.core.errors import DataError
from components.core.examples import SPLITS, Examples, Split
from components.ingest.tfrecord import Value, decode_example, read_records
from components.validate_data.measure import DIMENSIONS, STATISTICS, Floats, Measured, measure

_BATCH = 256
_LARGEST = 1 << 31
"""Bytes: tf.train.Example can't be larger than a Protocol Buffers message."""
_FRAME = 16
_FIX = "Run the ingest step again"
_NOT_AN_IMAGE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""All that Pillow raises for bytes that it can't decode."""


class Place(NamedTuple):
    """Where an example lies: shard (relative to the artifact) and byte offset of its record."""

    shard: str
    offset: int


Encoded = tuple[Split, Place, dict[str, Value]]
"""An example as it stands in its shard."""


class Row(NamedTuple):
    """One readable example."""

    key: str
    split: Split
    label: int
    text: str
    sha256: str
    slices: str
    place: Place
    measured: Measured


class Broken(NamedTuple):
    """An example whose image can't be decoded."""

    key: str
    split: Split
    why: str


@dataclass
class Scan:
    """The measured examples, column by column; all columns have one length, in shard order. About 700 bytes an image."""

    root: Path
    labels: list[str]
    keys: list[str] = field(default_factory=list)
    splits: NDArray[np.str_] = field(default_factory=lambda: np.empty(0, "<U10"))
    label: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    texts: list[str] = field(default_factory=list)
    sha256: list[str] = field(default_factory=list)
    slices: list[Mapping[str, str]] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    statistics: Floats = field(default_factory=lambda: np.empty((0, len(STATISTICS)), np.float32))
    descriptors: Floats = field(default_factory=lambda: np.empty((0, DIMENSIONS), np.float32))
    broken: list[Broken] = field(default_factory=list)

    def __len__(self) -> int:
        """Number of readable examples."""
        return len(self.keys)

    def image(self, index: int) -> bytes:
        """The encoded bytes of one example, read again from its shard."""
        place = self.places[index]
        with (self.root / place.shard).open("rb") as file:
            file.seek(place.offset)
            return _image_bytes(decode_example(next(read_records(file, place.shard, _LARGEST))))

    def rows(self, split: str) -> NDArray[np.intp]:
        """Indexes of a split's examples."""
        return np.flatnonzero(self.splits == split)

    def sample(self, rows: NDArray[np.intp], size: int) -> NDArray[np.intp]:
        """At most `size` of `rows`, those with the smallest content digests: random, repeatable, stable when images are added."""
        ordered = sorted(rows.tolist(), key=lambda row: (self.sha256[row], self.keys[row]))
        return np.array(ordered[:size], np.intp)

    def label_counts(self, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """How many of `rows` each label has, in the order of `labels`."""
        known = self.label[rows]
        return np.bincount(known[(known >= 0) & (known < len(self.labels))], minlength=len(self.labels)).astype(np.int64)


def scan_examples(root: Path, manifest: Examples, threads: int = 0) -> Scan:
    """Read and measure every example of the artifact at `root`.

    Memory holds a few hundred encoded images at a time and the measurements of all. `DataError` names a shard that is missing or
    damaged; an image that can't be decoded is listed in `broken` instead.
    """
    rows: list[Row] = []
    broken: list[Broken] = []
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        examples = _examples(root, manifest)
        while batch := list(islice(examples, _BATCH)):
            for found in pool.map(_measure, batch):
                (rows if isinstance(found, Row) else broken).append(found)  # pyright: ignore[reportArgumentType]
    return _columns(root, manifest, rows, broken)


def _examples(root: Path, manifest: Examples) -> Iterator[Encoded]:
    for split in SPLITS:
        for shard in manifest.splits[split].shards if split in manifest.splits else []:
            yield from _shard_examples(root, split, shard)


def _shard_examples(root: Path, split: Split, shard: str) -> Iterator[Encoded]:
    offset, path = 0, root / shard
    try:
        with path.open("rb") as file:
            for data in read_records(file, str(path), _LARGEST):
                yield split, Place(shard, offset), decode_example(data)
                offset += len(data) + _FRAME
    except FileNotFoundError:
        raise DataError("the shard is missing", where=str(path), fix=_FIX) from None
    except ValueError as error:
        raise DataError(f"no tf.train.Example: {error}", where=f"{path}, byte {offset}", fix=_FIX) from None


def _measure(example: Encoded) -> Row | Broken:
    split, place, features = example
    key = _text(features, "image/key") or f"{place.shard}@{place.offset}"
    data = _image_bytes(features)
    try:
        measured = measure(data)
    except _NOT_AN_IMAGE as error:
        return Broken(key, split, f"{type(error).__name__}: {error}"[:200])
    label = features.get("image/label", -1)
    sha256 = _text(features, "image/sha256") or sha256_bytes(data)
    text, slices = _text(features, "image/class/text"), _text(features, "image/slices") or "{}"
    return Row(key, split, label if isinstance(label, int) else -1, text, sha256, slices, place, measured)


def _image_bytes(features: Mapping[str, Value]) -> bytes:
    data = features.get("image/encoded", b"")
    return data if isinstance(data, bytes) else b""


def _text(features: Mapping[str, Value], name: str) -> str:
    value = features.get(name, b"")
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _columns(root: Path, manifest: Examples, rows: list[Row], broken: list[Broken]) -> Scan:
    if not rows:
        return Scan(root, manifest.labels, broken=broken)
    parsed = {text: _slices(text) for text in {row.slices for row in rows}}
    return Scan(
        root=root,
        labels=manifest.labels,
        keys=[row.key for row in rows],
        splits=np.array([row.split for row in rows]),
        label=np.array([row.label for row in rows], np.int64),
        texts=[row.text for row in rows],
        sha256=[row.sha256 for row in rows],
        slices=[parsed[row.slices] for row in rows],
        places=[row.place for row in rows],
        statistics=np.stack([row.measured.statistics for row in rows]),
        descriptors=np.stack([row.measured.descriptor for row in rows]),
        broken=broken,
    )


def _slices(text: str) -> Mapping[str, str]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return {str(column): str(entry) for column, entry in value.items()} if isinstance(value, dict) else {}


def slice_values(slices: Iterable[Mapping[str, str]]) -> dict[str, dict[str, int]]:
    """Column → value → number of examples, both sorted."""
    counts: dict[str, dict[str, int]] = {}
    for entry in slices:
        for column, value in entry.items():
            values = counts.setdefault(column, {})
            values[value] = values.get(value, 0) + 1
    return {column: dict(sorted(values.items())) for column, values in sorted(counts.items())}
