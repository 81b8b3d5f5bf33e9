"""What becomes of a scanned source: which images stay, in which split, under which labels; and what is refused."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from components.core.errors import DataError
from components.core.examples import SPLITS, Split
from components.ingest.duplicates import find_near, near_conflicts, without_copies, without_leaks
from components.ingest.entries import Entries, Rows
from components.ingest.items import Problem, Source
from components.ingest.near import Pairs
from components.ingest.scan import Scan
from components.ingest.settings import IngestSettings
from components.ingest.splits import assign_splits, touches

_SHOWN = 10


@dataclass
class Plan:
    """The examples to write, by split, and everything that was decided on the way."""

    entries: Entries
    """All usable images, also those that were left out."""
    labels: list[str]
    splits: dict[Split, Rows]
    """Rows of `entries`, ascending."""
    problems: list[Problem]
    pairs: Pairs
    """Near-duplicates: rows whose files differ but look alike."""
    warnings: list[str] = field(default_factory=list)

    def label_counts(self, split: Split) -> dict[str, int]:
        """Label → how many examples of a split have it."""
        counts = self.entries.label_counts(self.splits[split])
        return {label: counts[label] for label in self.labels}


def make_plan(source: Source, scan: Scan, settings: IngestSettings) -> Plan:
    """Decide everything. Raises `DataError`, with names, for what a policy refuses and for data that nothing can be learned from."""
    entries = scan.entries
    rows, copies = without_copies(entries, settings)
    pairs = find_near(entries, rows, settings.duplicate_distance)
    alike = assign_splits(entries, rows, pairs, settings)
    rows, leaks = without_leaks(entries, rows, pairs[~touches(entries, pairs, alike)])
    labels = sorted(entries.labels[number] for number in np.unique(entries.table["label"][rows]))
    empty = sorted((set(source.classes) | set(scan.labels)) - set(labels))
    problems = [*scan.problems, *copies, *leaks, *near_conflicts(entries, pairs), *_empty_classes(empty, settings)]
    _refuse([problem for problem in problems if problem.action == "refused"])
    splits: dict[Split, Rows] = {split: entries.in_split(rows, split) for split in SPLITS}
    plan = Plan(entries, labels, splits, problems, pairs, _warnings({entries.labels[number] for number in alike}))
    _require_classes(plan)
    _require_splits(plan)
    return plan


def _warnings(alike: set[str]) -> list[str]:
    if not alike:
        return []
    names = ", ".join(sorted(alike))
    return [f"the images of {names} look so alike that near-duplicates could not be kept on one side: test figures will flatter"]


def _empty_classes(names: Sequence[str], settings: IngestSettings) -> list[Problem]:
    action = "refused" if settings.policies.empty_class == "refuse" else "skipped"
    return [Problem("empty_class", name, "no usable image", action) for name in names]


def _refuse(refused: list[Problem]) -> None:
    if refused:
        kinds = sorted({problem.kind for problem in refused})
        raise DataError(
            f"the data has what the policies refuse: {name_some(refused)}",
            where=", ".join(f"ingest.policies.{kind}" for kind in kinds),
            fix="Correct the files, or set the policy to skip",
        )


def name_some(problems: Sequence[Problem]) -> str:
    """`a.jpg (truncated: …), b.jpg (…) and 12 more`."""
    named = ", ".join(f"{p.key} ({p.kind.replace('_', ' ')}{f': {p.detail}' if p.detail else ''})" for p in problems[:_SHOWN])
    return f"{named} and {len(problems) - _SHOWN:,} more" if len(problems) > _SHOWN else named


def _require_classes(plan: Plan) -> None:
    if len(plan.labels) < 2:
        found = f"only one class ('{plan.labels[0]}')" if plan.labels else "no usable image"
        skipped = [problem for problem in plan.problems if problem.action == "skipped"]
        named = f"; left out: {name_some(skipped)}" if skipped else ""
        raise DataError(f"the data has {found}{named}", fix="A classifier needs images of at least two classes")


def _require_splits(plan: Plan) -> None:
    for split, rows in plan.splits.items():
        if not len(rows):
            raise DataError(f"no image is left for the {split} split", fix="Add images: a class needs at least three, better fifty")
    lacking = [label for label, count in plan.label_counts("train").items() if not count]
    if lacking:
        raise DataError(f"no training image of {', '.join(lacking[:_SHOWN])}", fix="Add images of them, or remove the class")
