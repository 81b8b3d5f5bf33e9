"""The same picture more than once: exact copies, one picture under two labels, and near-identical pictures across splits."""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from components.core.examples import Split
from components.ingest.hashing import LOOK_BYTES
from components.ingest.items import Problem
from components.ingest.near import near_pairs
from components.ingest.scan import Entry
from components.ingest.settings import IngestSettings

Pair = tuple[Entry, Entry]
_ACTIONS = {"keep": "kept", "skip": "skipped", "refuse": "refused"}
# The copy in the split that judges is the one that stays, so that the test is whole and clean.
_RANK: dict[Split | None, int] = {"test": 0, "validation": 1, "train": 2, None: 3}


def without_copies(entries: list[Entry], settings: IngestSettings) -> tuple[list[Entry], list[Problem]]:
    """Treat files that are the same byte for byte by policy: one of them stays if their labels agree, none if they don't."""
    same: dict[bytes, list[Entry]] = defaultdict(list)
    for entry in entries:
        same[entry.original].append(entry)
    dropped: set[int] = set()
    problems: list[Problem] = []
    for copies in (copies for copies in same.values() if len(copies) > 1):
        gone, found = _judge_copies(sorted(copies, key=_rank), settings)
        dropped |= {id(entry) for entry in gone}
        problems += found
    return [entry for entry in entries if id(entry) not in dropped], problems


def _rank(entry: Entry) -> tuple[int, str]:
    return _RANK[entry.split], entry.key


def _judge_copies(copies: list[Entry], settings: IngestSettings) -> tuple[list[Entry], list[Problem]]:
    """Which of the copies (best first) go, and what is said about it."""
    first, *others = copies
    labels = sorted({entry.label for entry in copies})
    if len(labels) > 1:
        kind, policy, gone = "label_conflict", settings.policies.label_conflict, copies
        detail = f"the same picture is labelled {' and '.join(labels)}"
    else:
        kind, policy, gone = "duplicate", settings.policies.duplicate, others
        detail = f"same file as {first.key}"
    problems = [Problem(kind, entry.key, detail, _ACTIONS[policy]) for entry in gone]
    return ([] if policy == "keep" else gone), problems


def find_near(entries: list[Entry], distance: int) -> list[Pair]:
    """Pairs of different files that look alike; all that look alike are connected by pairs, directly or through others."""
    looks = np.frombuffer(b"".join(entry.look for entry in entries), np.uint8).reshape(-1, LOOK_BYTES)
    return [(entries[i], entries[j]) for i, j in near_pairs(looks, distance)]


def near_conflicts(pairs: Iterable[Pair]) -> list[Problem]:
    """Pictures that look alike under different labels: named, and kept, because looking alike is no proof."""
    pairs = [(a, b) for a, b in pairs if a.label != b.label]
    return [Problem("near_label_conflict", b.key, f"looks like {a.key}, which is another class", "kept") for a, b in pairs]


def group_leaders(entries: Iterable[Entry], pairs: Iterable[Pair]) -> dict[int, bytes]:
    """id(entry) → smallest file digest in the entry's group of near-duplicates (its own if it has none); union-find."""
    lowest = {id(entry): entry.original for entry in entries}
    parent = {node: node for node in lowest}

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for a, b in pairs:
        if id(a) in parent and id(b) in parent:
            left, right = root(id(a)), root(id(b))
            lowest[left] = min(lowest[left], lowest[right])
            parent[right] = left
    return {node: lowest[root(node)] for node in parent}


def without_leaks(entries: list[Entry], pairs: Iterable[Pair]) -> tuple[list[Entry], list[Problem]]:
    """Of pictures that look alike in several splits, keep those in the best one (test before validation before train), name the others."""
    leaders = group_leaders(entries, pairs)
    groups: dict[bytes, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[leaders[id(entry)]].append(entry)
    problems: dict[int, Problem] = {}
    for group in groups.values():
        best = min(group, key=_rank)
        for entry in group:
            if entry.split != best.split:
                detail = f"in {entry.split}, looks like {best.key} in {best.split}"
                problems[id(entry)] = Problem("near_duplicate", entry.key, detail)
    return [entry for entry in entries if id(entry) not in problems], list(problems.values())
