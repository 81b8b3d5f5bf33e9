"""What a run came to, told from its records alone: the one place that decides between SHIPPED, NOT SHIPPED and FAILED."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from components.core.gate import Reason
from components.core.record import Record

ORDER = (
    "ingest",
    "validate_data",
    "train_cloud",
    "evaluate_cloud",
    "train_mobile",
    "quantize_mobile",
    "evaluate_mobile",
    "compare_pair",
    "validate_infra",
    "assemble_release",
    "roll_out_cloud",
    "publish_mobile",
    "report",
)
"""Steps in the order of the flow; the report shows them so."""

SHARED_OUT = {
    "plan_shards": "ingest",
    "ingest_shard": "ingest",
    "evaluate_cloud_shard": "evaluate_cloud",
    "evaluate_mobile_shard": "evaluate_mobile",
}
"""Steps that a flow has only where work is shared out over several pods, and before which step each of them runs."""

BATCH = ("plan_predictions", "predict_shard", "predict")
"""Steps of the other pipeline, batch prediction."""

EVERY_STEP = (*(step for own in ORDER for step in (*(shared for shared, of in SHARED_OUT.items() if of == own), own)), *BATCH)
"""Every step that a pipeline of ours can have, in order."""

_SHARD = re.compile(r"(?P<step>[a-z_]+?)(-(?P<number>\d+)-of-\d+)?")

EXIT_CODES = {
    "UsageError": 2,
    "NotBlessedError": 3,
    "DataError": 4,
    "MissingObjectError": 4,
    "ConflictError": 5,
    "AlreadyExistsError": 5,
    "StaleError": 5,
}


@dataclass(frozen=True)
class Story:
    """How a run ended."""

    outcome: Literal["SHIPPED", "NOT SHIPPED", "FAILED", "BLESSED", "PREDICTED"]
    """PREDICTED of a batch prediction; BLESSED only in the copy inside a release, which is written before the release is rolled out."""
    release: str
    """The release's id if it was shipped or blessed, else empty."""
    why: list[str]
    """Reasons of a refusal or a failure, most telling first; empty if shipped."""
    failed_step: str = ""
    warnings: list[str] = field(default_factory=list)
    exit_code: int = 0


def tell(records: Mapping[str, Record]) -> Story:
    """The story of a run; a step that started and never ended counts as failed (its process was killed)."""
    warnings = [f"{step}: {text}" for step in in_order(records) for text in records[step].warnings]
    failed = next((records[s] for s in in_order(records) if s != "report" and records[s].status != "succeeded"), None)
    if failed is not None:
        error = failed.error or "DualError: the step's process ended without a word (killed, or out of memory)"
        code = EXIT_CODES.get(error.partition(":")[0], 1)
        return Story("FAILED", "", [f"{failed.step}: {error}"], failed.step, warnings, code)
    if any(step in records for step in BATCH):
        return _predicted(records, warnings)
    published = records.get("publish_mobile")
    if published is not None:
        return Story("SHIPPED", str(published.data.get("release", "")), [], "", warnings)
    if "assemble_release" not in records:
        return Story("FAILED", "", ["the run ended before a release was judged"], "", warnings, 1)
    judged = records["assemble_release"].verdict
    if judged is not None and judged.blessed:
        # Its pods could not be started, for example: a step that was never run leaves no record.
        return Story("FAILED", "", ["the release was blessed, and the run ended before it was published"], "", warnings, 1)
    return Story("NOT SHIPPED", "", _refusals(records), "", warnings, 3)


def blessed(records: Mapping[str, Record], release: str) -> Story:
    """The story inside a release: the pair passed every check, and nothing is rolled out yet."""
    warnings = [f"{step}: {text}" for step in in_order(records) for text in records[step].warnings]
    return Story("BLESSED", release, [], "", warnings)


def in_order(records: Iterable[str]) -> tuple[str, ...]:
    """Those names of records that are steps, in the order of the flow; a step's shards (`ingest_shard-2-of-7`) by their numbers."""
    placed = {name: place for name in records if (place := _place(name))}
    return tuple(sorted(placed, key=placed.__getitem__))


def _place(name: str) -> tuple[int, int] | None:
    match = _SHARD.fullmatch(name)
    return (EVERY_STEP.index(match["step"]), int(match["number"] or 0)) if match and match["step"] in EVERY_STEP else None


def verdicts(records: Mapping[str, Record]) -> list[tuple[str, bool, list[Reason]]]:
    """(step, blessed, checks) of every step that judged, in the order of the flow."""
    found = [(step, records[step].verdict) for step in in_order(records)]
    return [(step, verdict.blessed, verdict.reasons) for step, verdict in found if verdict is not None]


def _predicted(records: Mapping[str, Record], warnings: list[str]) -> Story:
    if (predicted := records.get("predict")) is None:
        return Story("FAILED", "", ["the run ended before its predictions were put together"], "", warnings, 1)
    return Story("PREDICTED", str(predicted.data.get("release", "")), [], "", warnings)


def _refusals(records: Mapping[str, Record]) -> list[str]:
    failed = [(step, f"{step}: {r.text}") for step, _, reasons in verdicts(records) for r in reasons if not r.passed]
    # assemble_release repeats every other step's verdict; its own checks matter where all others passed.
    others = [text for step, text in failed if step != "assemble_release"]
    return others or [text for _, text in failed] or ["assemble_release did not bless the release"]
