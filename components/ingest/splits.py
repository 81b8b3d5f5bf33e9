"""Which split an image belongs to: by the digest of its file, so that it stays there when others come and go."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence

from components.core.examples import SPLITS, Split
from components.ingest.duplicates import Pair, group_leaders, without_leaks
from components.ingest.scan import Entry
from components.ingest.settings import IngestSettings


def assign_splits(entries: list[Entry], pairs: list[Pair], settings: IngestSettings) -> set[str]:
    """Give a split to every entry that has none; near-duplicates get the same one. Returns the labels for which that can't be done.

    The split depends on the SHA-256 of the file alone: adding, removing, renaming or moving other images changes nothing (except that
    a class with too few images gets at least one into each split). A group of near-duplicates follows its smallest digest. If the
    source has splits already, only those that it lacks are taken from its training images.
    """
    given = {entry.split for entry in entries if entry.split}
    free = [entry for entry in entries if entry.split is None or (entry.split == "train" and len(given) < len(SPLITS))]
    usable, alike = _usable_pairs(free, pairs)
    leaders = group_leaders(free, usable)
    missing: list[Split] = [split for split in SPLITS if split not in given or split == "train"]
    for entry in free:
        split = hash_split(leaders[id(entry)], settings)
        entry.split = split if split in missing else "train"
    _fill_gaps(free, leaders, missing, settings)
    return alike | _wiped_out(entries, [pair for pair in pairs if not _touches(pair, alike)])


def hash_split(digest: bytes, settings: IngestSettings) -> Split:
    """Where a SHA-256 falls: below `test_fraction` test, then `validation_fraction` of validation, the rest train."""
    place = _place(digest)
    if place < settings.test_fraction:
        return "test"
    return "validation" if place < settings.test_fraction + settings.validation_fraction else "train"


def _place(digest: bytes) -> float:
    return int.from_bytes(digest[:8], "big") / 2**64


def _touches(pair: Pair, labels: Collection[str]) -> bool:
    return pair[0].label in labels or pair[1].label in labels


def _usable_pairs(entries: list[Entry], pairs: list[Pair]) -> tuple[list[Pair], set[str]]:
    """Pairs that may bind entries to one split, and the labels whose images are so alike that they would all be bound together."""
    leaders = group_leaders(entries, pairs)
    groups: dict[str, set[bytes]] = defaultdict(set)
    for entry in entries:
        groups[entry.label].add(leaders[id(entry)])
    sizes = Counter(entry.label for entry in entries)
    alike = {label for label, found in groups.items() if len(found) < len(SPLITS) <= sizes[label]}
    return [pair for pair in pairs if not _touches(pair, alike)], alike


def _wiped_out(entries: list[Entry], pairs: list[Pair]) -> set[str]:
    """Labels that would lose all images of a split if its near-duplicates in better splits were dropped."""
    before = {(entry.label, entry.split) for entry in entries}
    after = {(entry.label, entry.split) for entry in without_leaks(entries, pairs)[0]}
    return {label for label, _ in before - after}


def _fill_gaps(entries: Iterable[Entry], leaders: dict[int, bytes], wanted: Sequence[Split], settings: IngestSettings) -> None:
    """Give each class at least one group in every wanted split, where it has groups enough; the nearest digest moves."""
    groups: dict[str, dict[bytes, list[Entry]]] = defaultdict(lambda: defaultdict(list))
    for entry in entries:
        groups[entry.label][leaders[id(entry)]].append(entry)
    for label in sorted(groups):
        if len(groups[label]) >= len(wanted):
            for split in wanted:
                _fill_gap(groups[label], split, settings)


def _fill_gap(groups: dict[bytes, list[Entry]], split: Split, settings: IngestSettings) -> None:
    held = Counter(members[0].split for members in groups.values())
    if held[split]:
        return
    movable = [leader for leader, members in groups.items() if held[members[0].split] > 1]
    if movable:
        for entry in groups[min(movable, key=lambda leader: (_distance(leader, split, settings), leader))]:
            entry.split = split


def _distance(digest: bytes, split: Split, settings: IngestSettings) -> float:
    """How far a digest's place is from the interval of `split`."""
    place, test, validation = _place(digest), settings.test_fraction, settings.validation_fraction
    low, high = {"test": (0.0, test), "validation": (test, test + validation), "train": (test + validation, 1.0)}[split]
    return max(low - place, place - high, 0.0)
