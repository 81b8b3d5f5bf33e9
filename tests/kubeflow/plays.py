"""The course of a run: frames, one for each time that somebody looks, and the nodes that Kubeflow would report of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from components.report.story import ORDER
from tests.kubeflow.wire_types import write

STEPS = tuple(step for step in ORDER if step != "tune")
_GROUPS = ("root", "exit-handler-1", "condition-1")


@dataclass(frozen=True)
class Frame:
    """The run's state, its steps' (those that have started), and what happens when it is reached."""

    state: str
    steps: Mapping[str, str] = field(default_factory=dict)
    do: Callable[[dict[str, Any]], None] = lambda _: None
    error: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Play:
    """Frames in their order; the last one stays."""

    frames: list[Frame]


def waiting() -> Play:
    """A run whose pods never come."""
    return Play([Frame("PENDING"), Frame("RUNNING", {"ingest": "PENDING"})])


def course(steps: Mapping[str, Callable[[dict[str, Any]], None]], end: str, final: Mapping[str, str] | None = None) -> Play:
    """The steps one after another, each running for one frame and doing its thing at its end; then the run ends."""
    frames = [Frame("PENDING")]
    done: dict[str, str] = {}
    for step, act in steps.items():
        frames.append(Frame("RUNNING", {**done, step: "RUNNING"}))
        done[step] = "SUCCEEDED"
        frames.append(Frame("RUNNING", dict(done), act))
    return Play([*frames, Frame(end, {**done, **(final or {})})])


def details(run_id: str, frame: Frame) -> list[dict[str, Any]]:
    """`task_details`: for each step a driver, a node and an executor; the groups around them; the Workflow itself."""
    nodes = [_node(run_id, "dual-deploy-x7k2p", frame.state, 0, children=[1])]
    nodes += [
        _node(run_id, name, frame.state, number + 1) for number, name in enumerate((*_GROUPS, *(f"{each}-driver" for each in _GROUPS)))
    ]
    for number, (step, state) in enumerate(frame.steps.items(), start=1):
        nodes += _step(run_id, step.replace("_", "-"), state, 100 * number)
    return nodes


def _step(run_id: str, name: str, state: str, number: int) -> list[dict[str, Any]]:
    driver = _node(run_id, f"{name}-driver", "SUCCEEDED" if state != "PENDING" else "RUNNING", number)
    if state == "PENDING":
        return [driver]
    whole, inner = ("SUCCEEDED", "SKIPPED") if state == "CACHED" else (state, state)
    return [
        driver,
        _node(run_id, name, whole, number + 1, children=[number + 2]),
        _node(run_id, "executor", inner, number + 2, pod=f"dual-deploy-x7k2p-system-container-impl-{number + 2}"),
    ]


def _node(run_id: str, name: str, state: str, number: int, *, children: list[int] | None = None, pod: str = "") -> dict[str, Any]:
    began = datetime(2026, 11, 26, 3, 0, number % 60, tzinfo=UTC)
    over = state in ("SUCCEEDED", "FAILED", "SKIPPED")
    return write(
        "V2beta1PipelineTaskDetail",
        run_id=run_id,
        task_id=f"{run_id}-{number}",
        display_name=name,
        state=state,
        create_time=began.isoformat(),
        start_time=began.isoformat(),
        end_time=began.replace(minute=2).isoformat() if over else "1970-01-01T00:00:00+00:00",
        pod_name=pod or f"dual-deploy-x7k2p-{number}",
        child_tasks=[{"pod_name": f"dual-deploy-x7k2p-{child}"} for child in children or []],
    )
