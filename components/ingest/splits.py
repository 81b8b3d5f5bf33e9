"""Which split an image belongs to: by the digest of its file, so that it stays there when others come and go."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from components.core.examples import SPLITS, Split
from components.ingest.duplicates import group_leaders, without_leaks
from components.ingest.entries import NO_SPLIT, Entries, Rows
from components.ingest.near import Pairs
from components.ingest.settings import IngestSettings

_TRAIN = SPLITS.index("train")
_LEADER_BITS = 32
Places = NDArray[np.float64]
"""Where in [0, 1) digests lie."""


def assign_splits(entries: Entries, rows: Rows, pairs: Pairs, settings: IngestSettings) -> set[int]:
    """Give a split to each of `rows` that has none; near-duplicates get the same one. Returns the labels for which that can't be done.

    The split depends on the SHA-256 of the file alone: adding, removing, renaming or moving other images changes nothing (except that
    a class with too few images gets at least one into each split). A group of near-duplicates follows its smallest digest. If the
    source has splits already, only those that it lacks are taken from its training images.
    """
    splits = entries.table["split"]
    given = set(splits[rows].tolist()) - {NO_SPLIT}
    free = rows[(splits[rows] == NO_SPLIT) | ((splits[rows] == _TRAIN) & (len(given) < len(SPLITS)))]
    usable, alike = _usable_pairs(entries, free, pairs)
    leaders = group_leaders(entries, free, usable)
    missing: list[Split] = [split for split in SPLITS if SPLITS.index(split) not in given or split == "train"]
    places = _places(entries)
    hashed = hash_splits(places[leaders[free]], settings)
    splits[free] = np.where(np.isin(hashed, [SPLITS.index(split) for split in missing]), hashed, _TRAIN)
    _fill_gaps(entries, free, leaders, places, missing, settings)
    kept = pairs[~touches(entries, pairs, alike)]
    return alike | _wiped_out(entries, rows, kept)


def hash_splits(places: Places, settings: IngestSettings) -> Rows:
    """The numbers of the splits of places: below `test_fraction` test, then `validation_fraction` of validation, the rest train."""
    ends = (settings.test_fraction, settings.test_fraction + settings.validation_fraction)
    order = np.array([SPLITS.index(split) for split in ("test", "validation", "train")])
    return order[np.searchsorted(ends, places, side="right")]


def _places(entries: Entries) -> Places:
    """By the rank of the digest."""
    places = np.empty(len(entries))
    places[entries.digest_ranks()] = entries.table["original"][:, 0].astype(np.float64) / 2**64
    return places


def touches(entries: Entries, pairs: Pairs, labels: Collection[int]) -> NDArray[np.bool_]:
    """Which pairs have an end with one of the labels."""
    ends = np.isin(entries.table["label"][pairs], list(labels))
    return ends[:, 0] | ends[:, 1]


def _usable_pairs(entries: Entries, rows: Rows, pairs: Pairs) -> tuple[Pairs, set[int]]:
    """Pairs that may bind rows to one split, and the labels whose images are so alike that they would all be bound together."""
    labels = entries.table["label"][rows]
    groups = np.unique(_groups(labels, group_leaders(entries, rows, pairs)[rows])) >> _LEADER_BITS
    found, sizes = (np.bincount(numbers, minlength=len(entries.labels)) for numbers in (groups, labels))
    alike = set(np.flatnonzero((found < len(SPLITS)) & (sizes >= len(SPLITS))).tolist())
    return pairs[~touches(entries, pairs, alike)], alike


def _groups(labels: Rows, leaders: Rows) -> Rows:
    """One number for both, sorted by label."""
    return labels.astype(np.int64) << _LEADER_BITS | leaders


def _wiped_out(entries: Entries, rows: Rows, pairs: Pairs) -> set[int]:
    """Labels that would lose all images of a split if its near-duplicates in better splits were dropped."""
    kept, _ = without_leaks(entries, rows, pairs)
    labels, splits = entries.table["label"], entries.table["split"]
    before, after = (np.unique(labels[part] * len(SPLITS) + splits[part]) for part in (rows, kept))
    return set((np.setdiff1d(before, after) // len(SPLITS)).tolist())


def _fill_gaps(entries: Entries, rows: Rows, leaders: Rows, places: Places, wanted: Sequence[Split], settings: IngestSettings) -> None:
    """Give each class at least one group in every wanted split, where it has groups enough; the nearest digest moves."""
    labels, splits = entries.table["label"][rows], entries.table["split"]
    groups, first = np.unique(_groups(labels, leaders[rows]), return_index=True)
    of_label, of_leader = groups >> _LEADER_BITS, groups & (1 << _LEADER_BITS) - 1
    of_split = splits[rows[first]].astype(np.int64)
    for label in np.flatnonzero(np.bincount(of_label) >= len(wanted)).tolist():
        mine = of_label == label
        for split in wanted:
            moved = _fill_gap(of_leader[mine], of_split[mine], places, split, settings)
            if moved is not None:
                of_split[mine & (of_leader == moved)] = SPLITS.index(split)
                splits[rows[(labels == label) & (leaders[rows] == moved)]] = SPLITS.index(split)


def _fill_gap(leaders: Rows, splits: Rows, places: Places, wanted: Split, settings: IngestSettings) -> int | None:
    """The leader of the group of a class that should move to `wanted`, if that is empty and another split can spare one."""
    held = np.bincount(splits, minlength=len(SPLITS))
    movable = leaders[held[splits] > 1]
    if held[SPLITS.index(wanted)] or not len(movable):
        return None
    return int(movable[np.lexsort((movable, _distances(places[movable], wanted, settings)))[0]])


def _distances(places: Places, split: Split, settings: IngestSettings) -> Places:
    """How far places are from the interval of `split`."""
    test, validation = settings.test_fraction, settings.validation_fraction
    low, high = {"test": (0.0, test), "validation": (test, test + validation), "train": (test + validation, 1.0)}[split]
    return np.maximum(np.maximum(low - places, places - high), 0.0)
