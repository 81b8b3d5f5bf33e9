"""How a run came out: from the records that its steps left in the store, never from the service's own final state.

The service calls a run that shipped FAILED if its last page could not be drawn, and one that refused to ship SUCCEEDED.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from components.core.errors import DualError, UsageError
from components.core.record import Record, read_records, record_name
from components.core.stores import Store, open_store
from components.report.page import render
from components.report.story import tell
from pipelines.submission.backend import Run

Word = Literal["SHIPPED", "NOT SHIPPED", "FAILED", "TERMINATED", "RUNNING", "UNKNOWN"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a run ended, or that it has not."""

    run_id: str
    outcome: Word
    exit_code: int
    release: str = ""
    """The shipped release's id, or empty."""
    why: str = ""
    state: str = ""
    """What the service calls it."""
    report: str = ""
    """Where the page was written, or empty."""
    link: str = ""
    seconds: float | None = None


def judge(run: Run, store_uri: str, report: Path | None = None) -> Verdict:
    """The verdict on a run, and its report written to `report`; a store that can't be read makes the outcome UNKNOWN (exit 1)."""
    try:
        store = open_store(store_uri)
        records = read_records(store, run.id)
    except DualError as error:
        return _verdict(run, "UNKNOWN", 1, why=f"its records can't be read from here: {error}")
    if not records:
        why = f"{store_uri} has no record of it{': ' + run.error if run.error else ''}"
        return _verdict(run, *_without_records(run), why=_or_failure(run, why))
    written = _write_report(store, run.id, report) if report else ""
    return _judged(run, records, written)


def store_in(parameters: Mapping[str, Any]) -> str:
    """The store that a run with these parameters writes to; `UsageError` if they name none."""
    if store := str(parameters.get("store") or ""):
        return store
    raise UsageError("the parameters name no store: its records can't be read", where="run", fix="Give --store")


def step_errors(run: Run, parameters: Mapping[str, Any], store_uri: str = "") -> dict[str, str]:
    """Step → its own error, from the records; nothing for what the store does not have, or can't be asked for from here."""
    try:
        records = read_records(open_store(store_uri or store_in(parameters)), run.id)
    except DualError:
        return {}
    return {step: record.error for step, record in records.items() if record.error}


@dataclass(frozen=True)
class Remarks:
    """What the records say of the steps of a run."""

    store_uri: str
    run_id: str

    def of(self, step: str) -> str:
        """The step's error, its verdict, or its last note; empty if there is none, or the store can't be read from here."""
        try:
            found = open_store(self.store_uri).find(record_name(self.run_id, step, "record.json"))
        except DualError:
            return ""
        record = Record.model_validate_json(found.data) if found else Record(step=step)
        last = record.notes[-1] if record.notes else ""
        return record.error or (record.verdict.summary() if record.verdict else last)


def _judged(run: Run, records: dict[str, Record], report: str) -> Verdict:
    story = tell(records)
    if story.outcome == "SHIPPED":
        return _verdict(run, "SHIPPED", 0, release=story.release, report=report)
    if run.state == "terminated":
        return _verdict(run, "TERMINATED", 1, why=_stopped_in(records), report=report)
    if not run.is_over():
        return _verdict(run, "RUNNING", 0, report=report)
    outcome: Word = "NOT SHIPPED" if story.outcome == "NOT SHIPPED" else "FAILED"
    return _verdict(run, outcome, story.exit_code, why=_or_failure(run, "; ".join(story.why)), report=report)


def _without_records(run: Run) -> tuple[Word, int]:
    match run.state:
        case "terminated":
            return "TERMINATED", 1
        case "failed":
            return "FAILED", 1
        case _:
            return ("UNKNOWN", 1) if run.is_over() else ("RUNNING", 0)


def _or_failure(run: Run, why: str) -> str:
    """The reasons, and which task the service saw fail, if the records don't name it (its pod never started, for example)."""
    failed = [task for task in run.tasks if task.state == "failed" and task.name not in why]
    return "; ".join([*([why] if why else []), *(f"{task.name} failed{': ' + task.error if task.error else ''}" for task in failed)])


def _stopped_in(records: dict[str, Record]) -> str:
    running = [step for step, record in records.items() if record.status == "running"]
    return f"while {', '.join(running)} ran" if running else ""


def _write_report(store: Store, run_id: str, path: Path) -> str:
    """The page that the exit step wrote, or one made now from the records if it did not get there."""
    found = store.find(record_name(run_id, "report", "index.html"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(found.data if found else render(store, run_id).encode())
    return str(path)


def _verdict(run: Run, outcome: Word, exit_code: int, *, release: str = "", why: str = "", report: str = "") -> Verdict:
    seconds = round(taken, 1) if (taken := run.seconds()) is not None else None
    return Verdict(
        run_id=run.id,
        outcome=outcome,
        exit_code=exit_code,
        release=release,
        why=why,
        state=run.state,
        report=report,
        link=run.link,
        seconds=seconds,
    )
