"""What the steps of a run leave in its store, written as the steps write it."""

from collections.abc import Callable
from typing import Any

from components.core.gate import Gate, Threshold, judge
from components.core.record import Record, StepRecord, record_name
from components.core.stores import open_store
from tests.kubeflow.plays import Frame, Play, course

RELEASE = "0123456789ab"
REFUSAL = "evaluate_mobile: accuracy 0.5 (must be >= 0.8)"
_GATE = Gate(thresholds={"accuracy": Threshold(min=0.8)})
_FLOW = ("ingest", "train_cloud", "evaluate_cloud", "train_mobile", "evaluate_mobile", "assemble_release")
_STARTED = "2026-11-26T03:00:00+00:00"
Act = Callable[[dict[str, Any]], None]


def _store(run: dict[str, Any]) -> str:
    return str(run["runtime_config"]["parameters"]["store"])


def leaves(step: str, *, accuracy: float = 0.0, error: str = "", **data: str) -> Act:
    """The step's record: a verdict if it has an accuracy, its data, or its error. Nothing is printed: this is another process's work."""

    def act(run: dict[str, Any]) -> None:
        verdict = judge(step, _GATE, {"accuracy": accuracy}) if accuracy else None
        status = "failed" if error else "succeeded"
        record = Record(step=step, status=status, started=_STARTED, seconds=1.0, verdict=verdict, data=dict(data), error=error)
        StepRecord(open_store(_store(run)), run["run_id"], step, record).write()

    return act


def reports(run: dict[str, Any]) -> None:
    """The exit step: its record and its page."""
    leaves("report")(run)
    open_store(_store(run)).put(record_name(run["run_id"], "report", "index.html"), b"<h1>the report</h1>")


def _steps(*, cloud: float = 0.9, mobile: float = 0.9) -> dict[str, Act]:
    accuracies = {"evaluate_cloud": cloud, "evaluate_mobile": mobile}
    return {step: leaves(step, accuracy=accuracies.get(step, 0.0)) for step in _FLOW}


def ships(_: dict[str, Any], end: str = "SUCCEEDED") -> Play:
    """A run that ships; `end` is what Kubeflow calls it."""
    published = {"roll_out_cloud": leaves("roll_out_cloud"), "publish_mobile": leaves("publish_mobile", release=RELEASE)}
    return course({**_steps(), **published, "report": reports}, end)


def ships_and_fails(run: dict[str, Any]) -> Play:
    """A run that ships, and that Kubeflow calls FAILED: its report could not be drawn."""
    play = ships(run, "FAILED")
    last = play.frames[-1]
    return Play([*play.frames[:-1], Frame("FAILED", {**last.steps, "report": "FAILED"})])


def refuses(_: dict[str, Any]) -> Play:
    """A run that Kubeflow calls SUCCEEDED, and that ships nothing: the mobile model is too bad."""
    return course({**_steps(mobile=0.5), "report": reports}, "SUCCEEDED", {"roll_out_cloud": "SKIPPED", "publish_mobile": "SKIPPED"})


def breaks(_: dict[str, Any]) -> Play:
    """A run whose training fails; the exit step still reports."""
    begun = {"ingest": "CACHED", "train_cloud": "RUNNING"}
    failed = {"ingest": "CACHED", "train_cloud": "FAILED"}
    return Play(
        [
            Frame("PENDING"),
            Frame("RUNNING", {"ingest": "PENDING"}),
            Frame("RUNNING", begun, leaves("ingest")),
            Frame("RUNNING", failed, leaves("train_cloud", error="RuntimeError: out of ideas")),
            Frame("FAILED", {**failed, "report": "SUCCEEDED"}, reports),
        ]
    )


def leaves_nothing(_: dict[str, Any]) -> Play:
    """A run that ends well and writes to another store."""
    return Play([Frame("SUCCEEDED", {"ingest": "SUCCEEDED"})])
