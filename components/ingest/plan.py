"""Which images stay, and in which split: duplicates, label conflicts, near-duplicates across splits, hash splits, labels."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from components.core.errors import DataError
from components.core.examples import SPLITS, Split
from components.ingest.hashing import HASH_BYTES, near_pairs
from components.ingest.items import Problem, Source
from components.ingest.scan import Entry, Scan
from components.ingest.settings import IngestSettings

# The copy in the split that judges is kept, so that the test stays whole and clean.
_RANK: dict[Split | None, int] = {"test": 0, "validation": 1, "train": 2, None: 3}
_SHOWN = 10


@dataclass
class Plan:
    """The examples to write, by split, and everything that was decided on the way."""

    labels: list[str]
    splits: dict[Split, list[Entry]]
    problems: list[Problem]
    pairs: list[tuple[Entry, Entry]] = field(default_factory=list)
    """Near-duplicates that are not byte-identical, each with the one that was kept first."""


def make_plan(source: Source, scan: Scan, settings: IngestSettings) -> Plan:
    """Decide everything. Raises `DataError`, with names, for what a policy refuses and for data that can't be learned from."""
    entries, problems = _without_copies(scan.entries, settings)
    found = _near(entries, settings.duplicate_distance)
    assign_splits(entries, found, settings)
    entries, across = _without_leaks(entries, found)
    problems = scan.problems + problems + across
    labels = sorted({entry.label for entry in entries})
    promised = set(source.classes) | set(scan.labels_seen)
    empty = "refused" if settings.policies.empty_class == "refuse" else "skipped"
    problems += [Problem("empty_class", name, "no usable image", empty) for name in sorted(promised - set(labels))]
    _refuse(problems)
    plan = Plan(labels, {split: [e for e in entries if e.split == split] for split in SPLITS}, problems, found)
    _require_learnable(plan)
    return plan


def _without_copies(entries: list[Entry], settings: IngestSettings) -> tuple[list[Entry], list[Problem]]:
    """Exact copies: one of each label-consistent set stays; sets with two labels go as a whole (both by policy)."""
    sets: dict[bytes, list[Entry]] = defaultdict(list)
    for entry in entries:
        sets[entry.original].append(entry)
    dropped: set[int] = set()
    problems: list[Problem] = []
    for copies in (copies for copies in sets.values() if len(copies) > 1):
        copies.sort(key=lambda entry: (_RANK[entry.split], entry.key))
        gone, found = _judge_copies(copies, settings)
        dropped |= {id(entry) for entry in gone}
        problems += found
    return [entry for entry in entries if id(entry) not in dropped], problems


def _judge_copies(copies: list[Entry], settings: IngestSettings) -> tuple[list[Entry], list[Problem]]:
    first, *others = copies
    labels = sorted({entry.label for entry in copies})
    if len(labels) > 1:
        kind, policy, gone = "label_conflict", settings.policies.label_conflict, copies
        detail = f"the same picture is labelled {' and '.join(labels)}"
    else:
        kind, policy, gone = "duplicate", settings.policies.duplicate, others
        detail = f"same file as {first.key}"
    action = {"keep": "kept", "skip": "skipped", "refuse": "refused"}[policy]
    return [] if policy == "keep" else gone, [Problem(kind, entry.key, detail, action) for entry in gone]


def _near(entries: list[Entry], distance: int) -> list[tuple[Entry, Entry]]:
    hashes = np.frombuffer(b"".join(entry.hash for entry in entries), np.uint8).reshape(-1, HASH_BYTES)
    return [(entries[i], entries[j]) for i, j in near_pairs(hashes, distance)]


def assign_splits(entries: list[Entry], pairs: Iterable[tuple[Entry, Entry]], settings: IngestSettings) -> None:
    """Give a split to every entry that has none; near-duplicates get the same one.

    The split depends on the SHA-256 of the file alone: adding, removing, renaming or moving other images changes nothing. A group of
    near-duplicates follows its smallest hash. If the source has a split already, only what it lacks is taken from its training images.
    """
    given = {entry.split for entry in entries if entry.split}
    free = [entry for entry in entries if entry.split is None or (entry.split == "train" and len(given) < len(SPLITS))]
    leaders = _leaders(free, pairs)
    for entry in free:
        split = hash_split(leaders.get(id(entry), entry.original), settings)
        entry.split = split if split not in given else "train"
    _fill_gaps(free, leaders)


def hash_split(digest: bytes, settings: IngestSettings) -> Split:
    """Where a SHA-256 falls: test below `test_fraction`, then validation, then train."""
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < settings.test_fraction:
        return "test"
    return "validation" if place < settings.test_fraction + settings.validation_fraction else "train"


def _leaders(entries: list[Entry], pairs: Iterable[tuple[Entry, Entry]]) -> dict[int, bytes]:
    """id(entry) → smallest file hash of its group of near-duplicates, for entries that have any (union-find)."""
    free = {id(entry) for entry in entries}
    parent: dict[int, int] = {}
    digests: dict[int, bytes] = {}

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for a, b in pairs:
        if id(a) in free and id(b) in free:
            for entry in (a, b):
                digests.setdefault(parent.setdefault(id(entry), id(entry)), entry.original)
                digests[id(entry)] = min(digests.get(id(entry), entry.original), entry.original)
            left, right = root(id(a)), root(id(b))
            digests[left] = min(digests[left], digests[right])
            parent[right] = left
    return {node: digests[root(node)] for node in parent}


def _fill_gaps(entries: list[Entry], leaders: dict[int, bytes]) -> None:
    return None


def _without_leaks(entries: list[Entry], pairs: list[tuple[Entry, Entry]]) -> tuple[list[Entry], list[Problem]]:
    """Drop the copy in the lesser split of every near-duplicate pair across splits: train first, then validation."""
    problems: dict[int, Problem] = {}
    for a, b in pairs:
        if a.split == b.split:
            continue
        kept, gone = sorted((a, b), key=lambda entry: _RANK[entry.split])
        problems.setdefault(id(gone), Problem("near_duplicate", gone.key, f"in {gone.split}, looks like {kept.key} in {kept.split}"))
    return [entry for entry in entries if id(entry) not in problems], list(problems.values())


def _refuse(problems: list[Problem]) -> None:
    refused = [problem for problem in problems if problem.action == "refused"]
    if refused:
        kinds = sorted({problem.kind for problem in refused})
        raise DataError(
            f"the data has what the policies refuse: {name_some(refused)}",
            where=", ".join(f"ingest.policies.{kind}" for kind in kinds),
            fix="Correct the files, or set the policy to skip",
        )


def name_some(problems: list[Problem], shown: int = _SHOWN) -> str:
    """`a.jpg (truncated: …), b.jpg (…) and 12 more`."""
    names = [f"{p.key} ({p.kind.replace('_', ' ')}{f': {p.detail}' if p.detail else ''})" for p in problems[:shown]]
    more = f" and {len(problems) - shown:,} more" if len(problems) > shown else ""
    return ", ".join(names) + more


def _require_learnable(plan: Plan) -> None:
    if len(plan.labels) < 2:
        found = f"only one class ('{plan.labels[0]}')" if plan.labels else "no usable image"
        skipped = [problem for problem in plan.problems if problem.action == "skipped"]
        named = f"; left out: {name_some(skipped)}" if skipped else ""
        raise DataError(f"the data has {found}{named}", fix="A classifier needs images of at least two classes")
    for split, entries in plan.splits.items():
        lacking = [label for label in plan.labels if label not in {entry.label for entry in entries}] if split == "train" else []
        if lacking or not entries:
            what = f"no {split} image of {', '.join(lacking[:_SHOWN])}" if lacking else f"no {split} image at all"
            raise DataError(f"there is {what}", fix="Add images; each class needs a few")
