"""From what Vertex answers (a PipelineJob, a Schedule, as JSON) to our words."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from components.core.errors import UsageError
from pipelines.submission.backend import OVER, Order, Run, Schedule, State, Task
from pipelines.submission.cron import Cron, read_cron
from pipelines.submission.trigger import Foreign, Plan
from pipelines.submission.vertex.orders import CATCH_UP, DIGEST, EXPERIMENT, step_names

Json = Mapping[str, Any]
_CONSOLE = "https://console.cloud.google.com/vertex-ai"
_ZONED = re.compile(r"(?:CRON_TZ|TZ)=(\S+)\s+(.*)")
STATES: Mapping[str, State] = {
    "QUEUED": "pending",
    "PENDING": "pending",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "CANCELLING": "terminating",
    "CANCELLED": "terminated",
    "PAUSED": "paused",
}
"""A run's state, without the PIPELINE_STATE_ that is before each."""
_TASK_STATES: Mapping[str, State] = {
    **STATES,
    "CANCEL_PENDING": "terminating",
    # What Vertex calls skipped was answered by its cache; what this project calls skipped was not triggered.
    "SKIPPED": "cached",
    "NOT_TRIGGERED": "skipped",
}


def to_run(job: Json, project: str, region: str) -> Run:
    """A run, with its tasks where they were sent (a list has none, and no parameters)."""
    identity = last(job.get("name", ""))
    info = job.get("pipelineSpec", {}).get("pipelineInfo", {})
    labels = job.get("labels", {})
    return Run(
        id=identity,
        name=job.get("displayName", ""),
        state=STATES.get(str(job.get("state", "")).removeprefix("PIPELINE_STATE_"), "unknown"),
        link=f"{_CONSOLE}/locations/{region}/pipelines/runs/{identity}?project={project}",
        experiment=labels.get(EXPERIMENT, ""),
        pipeline=info.get("name", ""),
        version=_version(job),
        schedule=last(job.get("scheduleName", "")),
        created=_time(job.get("createTime")),
        ended=_time(job.get("endTime")),
        error=_message(job),
        parameters=dict(job.get("runtimeConfig", {}).get("parameterValues", {})),
        tasks=_tasks(job),
    )


def to_schedule(found: Json, project: str, region: str) -> Schedule:
    """A schedule of pipeline runs."""
    job = found.get("createPipelineJobRequest", {}).get("pipelineJob", {})
    runtime, identity = job.get("runtimeConfig", {}), last(found.get("name", ""))
    root = runtime.get("gcsOutputDirectory", "")
    order = Order(
        experiment=job.get("labels", {}).get(EXPERIMENT, ""),
        name=found.get("displayName", ""),
        parameters=dict(runtime.get("parameterValues", {})),
        service_account=job.get("serviceAccount", ""),
        pipeline_root="" if root == job.get("pipelineSpec", {}).get("defaultPipelineRoot") else root,
    )
    return Schedule(
        id=identity,
        name=found.get("displayName", ""),
        order=order,
        version=_version(job),
        plan=_plan(found, catch_up=job.get("labels", {}).get(CATCH_UP) == "true"),
        enabled=found.get("state") == "ACTIVE",
        created=_time(found.get("createTime")),
        link=f"{_CONSOLE}/locations/{region}/pipelines/schedules/{identity}?project={project}",
    )


def last(name: str) -> str:
    """The last part of a resource name."""
    return name.rpartition("/")[2]


def _version(job: Json) -> str:
    digest = job.get("labels", {}).get(DIGEST, "")
    return f"{job.get('pipelineSpec', {}).get('pipelineInfo', {}).get('name', '')}-{digest}" if digest else ""


def _plan(found: Json, *, catch_up: bool) -> Plan:
    trigger, zone = _trigger(str(found.get("cron", "")))
    start, created = _time(found.get("startTime")), _time(found.get("createTime"))
    # A schedule without a start gets the time at which it was made.
    at_once = start and created and start <= created + timedelta(seconds=1)
    count = found.get("maxConcurrentActiveRunCount") or found.get("maxConcurrentRunCount") or 1
    return Plan(
        trigger=trigger,
        start=None if at_once else start,
        end=_time(found.get("endTime")),
        catch_up=catch_up,
        max_concurrency=int(count),
        zone=zone,
    )


def _trigger(text: str) -> tuple[Cron | Foreign, str]:
    match = _ZONED.fullmatch(text)
    zone, fields = (match[1], match[2]) if match else ("UTC", text)
    try:
        ZoneInfo(zone)
        return read_cron(fields), zone
    except (UsageError, ZoneInfoNotFoundError, ValueError):
        return Foreign(text), "UTC"


_WELL = ("succeeded", "skipped", "cached")


def _tasks(job: Json) -> tuple[Task, ...]:
    """One task for each step that Vertex knows of, in the order in which they started.

    If it ran several times it is the last attempt; of the turns of a loop (other parents), one that went wrong or is not over.
    """
    names = dict(step_names(job.get("pipelineSpec", {})))
    details = job.get("jobDetail", {}).get("taskDetails", ())
    tasks = [(_task(names[each["taskName"]], each), each.get("parentTaskId", "")) for each in details if each.get("taskName") in names]
    never = datetime.max.replace(tzinfo=UTC)
    ordered = sorted(tasks, key=lambda pair: (pair[0].started or never, pair[0].name))
    turns = {(task.name, parent): task for task, parent in ordered}
    found: dict[str, Task] = {}
    for task in turns.values():
        if task.name not in found or found[task.name].state in _WELL:
            found[task.name] = task
    return tuple(found.values())


def _task(step: str, detail: Json) -> Task:
    state = _TASK_STATES.get(str(detail.get("state", "")), "unknown")
    ended = _time(detail.get("endTime")) if state in OVER else None
    return Task(
        name=step, state=state, started=_time(detail.get("startTime")), ended=ended, error=_message(detail) or _passing(detail, state)
    )


def _passing(detail: Json, state: State) -> str:
    """The error that the service is trying to overcome in a task that is not over: the last one that was reported."""
    history = detail.get("pipelineTaskStatus", ())
    return "" if state in OVER or not history else _message(history[-1])


def _message(of: Json) -> str:
    """The message of a google.rpc.Status, in one line."""
    return " ".join(str(of.get("error", {}).get("message", "")).split())


def _time(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
