"""The same picture more than once: exact copies, one picture under two labels, and near-identical pictures across splits."""

from collections import defaultdict

import numpy as np

from components.ingest.entries import Entries, Entry, Rows
from components.ingest.items import Problem
from components.ingest.near import Pairs, near_pairs
from components.ingest.settings import IngestSettings

_ACTIONS = {"keep": "kept", "skip": "skipped", "refuse": "refused"}
# The copy in the split that judges is the one that stays, so that the test is whole and clean.
_RANK = {"test": 0, "validation": 1, "train": 2, None: 3}


def without_copies(entries: Entries, settings: IngestSettings) -> tuple[Rows, list[Problem]]:
    """Treat files that are the same byte for byte by policy: one of them stays if their labels agree, none if they don't."""
    rows = np.arange(len(entries))
    gone: list[int] = []
    problems: list[Problem] = []
    for copies in _together(rows, entries.digest_ranks()):
        dropped, found = _judge_copies(entries, copies, settings)
        gone += dropped
        problems += found
    return np.delete(rows, gone) if gone else rows, problems


def _together(rows: Rows, numbers: Rows) -> list[list[int]]:
    """Those of `rows` whose number others have too, by number, in the order of the first of each."""
    shared = rows[np.bincount(numbers[rows])[numbers[rows]] > 1]
    same: dict[int, list[int]] = defaultdict(list)
    for row in shared.tolist():
        same[int(numbers[row])].append(row)
    return list(same.values())


def _rank(entry: Entry) -> tuple[int, str]:
    return _RANK[entry.split], entry.key


def _judge_copies(entries: Entries, rows: list[int], settings: IngestSettings) -> tuple[list[int], list[Problem]]:
    """Which of the copies go, and what is said about it."""
    first, *others = sorted(rows, key=lambda row: _rank(entries[row]))
    labels = sorted({entries[row].label for row in rows})
    if len(labels) > 1:
        kind, policy, gone = "label_conflict", settings.policies.label_conflict, [first, *others]
        detail = f"the same picture is labelled {' and '.join(labels)}"
    else:
        kind, policy, gone = "duplicate", settings.policies.duplicate, others
        detail = f"same file as {entries.key(first)}"
    problems = [Problem(kind, entries.key(row), detail, _ACTIONS[policy]) for row in gone]
    return ([] if policy == "keep" else gone), problems


def find_near(entries: Entries, rows: Rows, distance: int) -> Pairs:
    """Pairs of rows whose files differ but look alike; all that look alike are connected by pairs, directly or through others."""
    looks = entries.table["look"]
    return rows[near_pairs(looks if len(rows) == len(looks) else looks[rows], distance)]


def near_conflicts(entries: Entries, pairs: Pairs) -> list[Problem]:
    """Pictures that look alike under different labels: named, and kept, because looking alike is no proof."""
    labels = entries.table["label"]
    named = ((entries.key(a), entries.key(b)) for a, b in pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]].tolist())
    return [Problem("near_label_conflict", b, f"looks like {a}, which is another class", "kept") for a, b in named]


def group_leaders(entries: Entries, rows: Rows, pairs: Pairs) -> Rows:
    """For every row the rank of the smallest file digest in its group of near-duplicates among `rows` (its own if it has none)."""
    leaders = entries.digest_ranks().copy()
    inside = np.zeros(len(entries), bool)
    inside[rows] = True
    parent: dict[int, int] = {}

    def root(node: int) -> int:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for a, b in pairs[inside[pairs].all(1)].tolist():
        left, right = root(a), root(b)
        leaders[left] = min(leaders[left], leaders[right])
        parent[right] = left
    for node in list(parent):
        leaders[node] = leaders[root(node)]
    return leaders


def without_leaks(entries: Entries, rows: Rows, pairs: Pairs) -> tuple[Rows, list[Problem]]:
    """Of pictures that look alike in several splits, keep those in the best one (test before validation before train), name the others."""
    problems: dict[int, Problem] = {}
    for group in _together(rows, group_leaders(entries, rows, pairs)):
        members = {row: entries[row] for row in group}
        best = min(members.values(), key=_rank)
        for row, entry in members.items():
            if entry.split != best.split:
                detail = f"in {entry.split}, looks like {best.key} in {best.split}"
                problems[row] = Problem("near_duplicate", entry.key, detail)
    return rows[~np.isin(rows, list(problems))] if problems else rows, list(problems.values())
