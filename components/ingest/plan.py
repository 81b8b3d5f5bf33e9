"""What becomes of a scanned source: which images stay, in which split, under which labels; and what is refused."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from components.core.errors import DataError
from components.core.examples import SPLITS, Split
from components.ingest.duplicates import Pair, find_near, near_conflicts, without_copies, without_leaks
from components.ingest.items import Problem, Source
from components.ingest.scan import Entry, Scan
from components.ingest.settings import IngestSettings
from components.ingest.splits import assign_splits

_SHOWN = 10


@dataclass
class Plan:
    """The examples to write, by split, and everything that was decided on the way."""

    labels: list[str]
    splits: dict[Split, list[Entry]]
    problems: list[Problem]
    pairs: list[Pair] = field(default_factory=list)
    """Near-duplicates: different files that look alike."""
    warnings: list[str] = field(default_factory=list)


def make_plan(source: Source, scan: Scan, settings: IngestSettings) -> Plan:
    """Decide everything. Raises `DataError`, with names, for what a policy refuses and for data that nothing can be learned from."""
    entries, copies = without_copies(scan.entries, settings)
    pairs = find_near(entries, settings.duplicate_distance)
    alike = assign_splits(entries, pairs, settings)
    entries, leaks = without_leaks(entries, [pair for pair in pairs if not {pair[0].label, pair[1].label} & alike])
    labels = sorted({entry.label for entry in entries})
    empty = sorted((set(source.classes) | set(scan.labels)) - set(labels))
    problems = [*scan.problems, *copies, *leaks, *near_conflicts(pairs), *_empty_classes(empty, settings)]
    _refuse([problem for problem in problems if problem.action == "refused"])
    plan = Plan(labels, {split: [e for e in entries if e.split == split] for split in SPLITS}, problems, pairs, _warnings(alike))
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
    for split, entries in plan.splits.items():
        if not entries:
            raise DataError(f"no image is left for the {split} split", fix="Add images: a class needs at least three, better fifty")
    lacking = sorted(set(plan.labels) - {entry.label for entry in plan.splits["train"]})
    if lacking:
        raise DataError(f"no training image of {', '.join(lacking[:_SHOWN])}", fix="Add images of them, or remove the class")
