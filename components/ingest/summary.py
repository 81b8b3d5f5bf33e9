"""What ingest tells: `ingest.json` beside the examples, and the tables and pictures of the run record."""

import io
from collections import Counter
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from components.core.examples import SPLITS
from components.core.record import StepRecord
from components.ingest.entries import Entry
from components.ingest.items import Problem, Source
from components.ingest.plan import Plan
from components.ingest.scan import Scan
from components.ingest.spool import Spool

FILE = "ingest.json"
_NAMED = 20
_SHEET_PAIRS, _SIDE = 12, 120


class Finding(BaseModel):
    """One problem: what, where, and what was done about it."""

    kind: str
    key: str
    detail: str = ""
    action: Literal["fixed", "skipped", "kept", "refused"]


class Ingested(BaseModel):
    """The content of ingest.json."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["dual.ingest/v1"] = Field(default="dual.ingest/v1", alias="schema")
    layout: str
    """What kind of input it was, in words."""
    read: int
    """How many files or records were looked at."""
    scaled: int
    """How many originals were larger than needed."""
    counts: dict[str, dict[str, int]]
    """Class → split → number of examples."""
    findings: list[Finding] = []
    spans: list[str] = []
    notes: list[str] = []

    def problem_counts(self) -> dict[str, int]:
        """Kind → how many."""
        return dict(sorted(Counter(finding.kind for finding in self.findings).items()))

    def of_kind(self, kind: str) -> list[Finding]:
        """All findings of one kind."""
        return [finding for finding in self.findings if finding.kind == kind]


def summarize(source: Source, scan: Scan, plan: Plan) -> Ingested:
    """Counts and findings, findings sorted by kind and key."""
    counted = {split: plan.label_counts(split) for split in SPLITS}
    problems = sorted(plan.problems, key=lambda problem: (problem.kind, problem.key))
    return Ingested(
        layout=source.kind,
        read=scan.read,
        scaled=scan.scaled,
        counts={label: {split: counted[split][label] for split in SPLITS} for label in plan.labels},
        findings=[Finding.model_validate(_finding(problem)) for problem in problems],
        spans=source.spans,
        notes=source.notes,
    )


def _finding(problem: Problem) -> dict[str, str]:
    return {"kind": problem.kind, "key": problem.key, "detail": problem.detail, "action": problem.action}


def record_ingested(record: StepRecord, ingested: Ingested, plan: Plan, spool: Spool) -> None:
    """Put counts, problems (named, capped), notes and the sheet of near-duplicates into the run record."""
    total = sum(len(rows) for rows in plan.splits.values())
    record.note(f"{total:,} examples of {len(plan.labels)} classes from {ingested.read:,} files ({ingested.layout})")
    for note in ingested.notes:
        record.note(note)
    for warning in plan.warnings:
        record.warn(warning)
    if ingested.scaled:
        record.note(f"{ingested.scaled:,} originals were larger than needed and were scaled down once")
    record.metric("examples", total)
    record.metric("left_out", sum(finding.action == "skipped" for finding in ingested.findings))
    record.table("Examples", ["class", *SPLITS, "all"], _count_rows(ingested))
    if ingested.findings:
        record.table("What was wrong with the data", ["kind", "action", "number", "names"], _problem_rows(ingested))
        record.warn(_sentence(ingested))
    if len(plan.pairs):
        sheet = _sheet([(plan.entries[a], plan.entries[b]) for a, b in plan.pairs[:_SHEET_PAIRS]], spool)
        caption = f"Near-identical pictures ({min(len(plan.pairs), _SHEET_PAIRS)} of {len(plan.pairs)} pairs)"
        record.picture("near_duplicates", sheet, caption)


def _sentence(ingested: Ingested) -> str:
    actions = Counter((finding.action, finding.kind) for finding in ingested.findings)
    parts = [f"{number:,} {kind.replace('_', ' ')} {action}" for (action, kind), number in sorted(actions.items())]
    return "problems in the data: " + ", ".join(parts)


def _count_rows(ingested: Ingested) -> list[list[str | int]]:
    rows: list[list[str | int]] = [[label, *per.values(), sum(per.values())] for label, per in ingested.counts.items()]
    sums = [sum(per[split] for per in ingested.counts.values()) for split in SPLITS]
    return [*rows, ["all", *sums, sum(sums)]]


def _problem_rows(ingested: Ingested) -> list[list[str | int]]:
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in ingested.findings:
        groups.setdefault((finding.kind, finding.action), []).append(finding)
    return [[kind.replace("_", " "), action, len(found), _names(found)] for (kind, action), found in groups.items()]


def _names(findings: list[Finding]) -> str:
    named = [f"{finding.key} ({finding.detail})" if finding.detail else finding.key for finding in findings[:_NAMED]]
    more = [f"and {len(findings) - _NAMED:,} more"] if len(findings) > _NAMED else []
    return ", ".join(named + more)


def _sheet(pairs: list[tuple[Entry, Entry]], spool: Spool) -> bytes:
    """Pairs side by side, two pairs a row, as PNG."""
    from PIL import Image, ImageDraw

    rows = (len(pairs) + 1) // 2
    width, height = 2 * (2 * _SIDE + 24), rows * (_SIDE + 40)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, pair in enumerate(pairs):
        left, top = (number % 2) * (2 * _SIDE + 24), (number // 2) * (_SIDE + 40)
        for side, entry in enumerate(pair):
            with Image.open(io.BytesIO(spool.read(entry.offset, entry.length))) as image:
                image.thumbnail((_SIDE, _SIDE))
                sheet.paste(image.convert("RGB"), (left + side * (_SIDE + 4), top))
            draw.text((left, top + _SIDE + 2 + 14 * side), f"{entry.split}: {entry.key}"[-44:], fill="black")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
