"""From the nodes that Kubeflow reports to the steps of the flow.

For each step the compiled workflow has a driver pod (`train-cloud-driver`), a node of its own (`train-cloud`) and in it the executor's pod
(`executor`); groups (`exit-handler-1`, `condition-1`, `for-loop-1`, with `root` around all) look the same and are no steps. A step that
Kubeflow's cache answers has an executor that was skipped.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pipelines.submission.backend import State, Task

STATES: Mapping[str, State] = {
    "PENDING": "pending",
    "RUNNING": "running",
    "PAUSED": "paused",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "SKIPPED": "skipped",
    "CANCELING": "terminating",
    "CANCELED": "terminated",
}
_GROUP = re.compile(r"^(root|exit-handler-\d+|condition(-branches)?-\d+|for-loop-\d+|.*-iteration-\d+|iteration-.*)$")
_TURN = re.compile(r"\(\d+\)$")
_EXECUTOR = "executor"
_DRIVER = "-driver"
_WORST: tuple[State, ...] = (
    "failed",
    "terminated",
    "terminating",
    "running",
    "pending",
    "paused",
    "succeeded",
    "cached",
    "skipped",
    "unknown",
)
"""What a step is, if it runs several times (a loop): the first of these that any of them is."""


@dataclass
class Node:
    """One node as reported, by Kubeflow or by Argo itself."""

    id: str
    """Ends with the same number as the pod's name."""
    name: str
    state: State
    started: datetime | None = None
    ended: datetime | None = None
    error: str = ""
    children: Sequence[str] = field(default_factory=tuple)


def state_of(text: Any) -> State:
    """Our word for Kubeflow's state (an enum's value, or nothing)."""
    return STATES.get(str(text or "").rpartition(".")[2], "unknown")


def steps(nodes: Iterable[Node]) -> tuple[Task, ...]:
    """One task for each step, in the order in which they started."""
    known = {_number(node.id): node for node in nodes}
    found: dict[str, list[Task]] = {}
    for node in known.values():
        name = _TURN.sub("", node.name)
        if name.endswith(_DRIVER) and not _GROUP.match(name.removesuffix(_DRIVER)):
            found.setdefault(step_name(name.removesuffix(_DRIVER)), []).append(_driven(node))
        elif _is_step(node, known):
            found.setdefault(step_name(name), []).append(_with_executor(node, known))
    tasks = [_merged(name, each) for name, each in found.items()]
    never = datetime.max.replace(tzinfo=UTC)
    return tuple(sorted(tasks, key=lambda task: (task.started or never, task.name)))


def step_name(text: str) -> str:
    """`train-cloud` → `train_cloud`, the step's name in the flow."""
    return text.replace("-", "_")


def _is_step(node: Node, known: Mapping[str, Node]) -> bool:
    if node.name == _EXECUTOR or _GROUP.match(_TURN.sub("", node.name).removesuffix(_DRIVER)):
        return False
    children = [known[number] for child in node.children if (number := _number(child)) in known]
    # The workflow's own node has `root` below it.
    return not any(child.name in ("root", "root-driver") for child in children)


def _driven(driver: Node) -> Task:
    """What the driver alone tells: the step waits, unless the driver failed."""
    failed = driver.state in ("failed", "terminated")
    ended = driver.ended if failed else None
    return Task(
        name="", state=driver.state if failed else "pending", started=driver.started, ended=ended, error=driver.error, pods=(driver.id,)
    )


def _with_executor(node: Node, known: Mapping[str, Node]) -> Task:
    below = [known[number] for child in node.children if (number := _number(child)) in known]
    executors = [child for child in below if child.name.startswith(_EXECUTOR)]
    cached = node.state == "succeeded" and bool(executors) and all(each.state == "skipped" for each in executors)
    error = node.error or next((each.error for each in executors if each.error), "")
    pods = tuple(each.id for each in executors if each.state != "skipped")
    state: State = "cached" if cached else node.state
    return Task(
        name="",
        state=state,
        started=node.started,
        ended=node.ended if state not in ("running", "pending") else None,
        error=error,
        pods=pods,
    )


def _merged(name: str, parts: Sequence[Task]) -> Task:
    """One task of a driver and a node, or of the several turns of a loop."""
    real = [part for part in parts if part.state != "pending" or part.error] or list(parts)
    state = _WORST[min(_WORST.index(part.state) for part in real)]
    starts = [part.started for part in parts if part.started]
    ends = [part.ended for part in real if part.ended]
    over = state in ("succeeded", "failed", "skipped", "cached", "terminated")
    # A driver's pod is of interest only while it is all there is.
    pods = tuple(pod for part in (real if any(part.pods for part in real) else parts) for pod in part.pods)
    error = next((part.error for part in real if part.error), "")
    ended = max(ends) if ends and over else None
    return Task(name=name, state=state, started=min(starts, default=None), ended=ended, error=error, pods=pods)


def _number(identity: str) -> str:
    """The number that a node and its pod share: `dual-x7k2p-1234` and `dual-x7k2p-system-container-impl-1234`."""
    return identity.rpartition("-")[2]


def reported(details: Iterable[Any]) -> list[Node]:
    """Nodes of a run's `task_details`."""
    return [
        Node(
            id=detail.pod_name or detail.task_id or "",
            name=detail.display_name or "",
            state=state_of(detail.state),
            started=real_time(detail.start_time),
            ended=real_time(detail.end_time),
            error=(detail.error.message or "") if detail.error else "",
            children=[child.pod_name or child.task_id or "" for child in detail.child_tasks or ()],
        )
        for detail in details
    ]


def real_time(value: datetime | None) -> datetime | None:
    """A time that was reported, as UTC; zero and negative epochs mean that there is none."""
    if value is None or value.year < 2000:
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)
