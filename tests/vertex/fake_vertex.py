"""Vertex AI Pipelines in this process: the documented v1 REST of pipelineJobs, schedules and operations, and what it refuses.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.pipelineJobs and …/projects.locations.schedules;
the shape of errors: https://cloud.google.com/apis/design/errors
"""

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.kubeflow.fake_kfp import Answer, Request, as_json
from tests.kubeflow.plays import Play, waiting
from tests.vertex.filters import matches

PROJECT, REGION = "my-project", "europe-west4"
PARENT = f"projects/{PROJECT}/locations/{REGION}"
TOKEN = "the-token"
_JOB = {"displayName", "pipelineSpec", "runtimeConfig", "labels", "serviceAccount", "network", "encryptionSpec", "reservedIpRanges"}
_SCHEDULE = {
    "displayName",
    "cron",
    "createPipelineJobRequest",
    "startTime",
    "endTime",
    "maxRunCount",
    "maxConcurrentRunCount",
    "allowQueueing",
}
_LABEL = re.compile(r"[a-z0-9_-]{0,63}")
_CRON = re.compile(r"(?:(?:CRON_)?TZ=[A-Za-z_/+0-9-]+ )?[0-9*/,-]+( [0-9*/,-]+){4}")
_OVER = ("SUCCEEDED", "FAILED", "CANCELLED")
_STATUS = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 409: "ALREADY_EXISTS"}
Json = dict[str, Any]


class Refusal(Exception):
    """What the service refuses."""

    def __init__(self, code: int, message: str, *, status: str = "", details: list[Json] | None = None) -> None:
        super().__init__(message)
        self.code, self.details = code, details or []
        self.body = {"error": {"code": code, "message": message, "status": status or _STATUS.get(code, ""), "details": self.details}}


def invalid(name: str, description: str) -> Refusal:
    """400 with a field violation."""
    detail = {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [{"field": name, "description": description}]}
    return Refusal(400, "Request contains an invalid argument.", details=[detail])


def denied(message: str, reason: str = "", **metadata: str) -> Refusal:
    """403, with an ErrorInfo if there is a reason."""
    detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com", "metadata": metadata}
    return Refusal(403, message, details=[detail] if reason else [])


@dataclass
class FakeVertex:
    """One project and region. `play` decides the course of the next run; `guard` may refuse a request, or answer it."""

    play: Callable[[Json], Play] = lambda _: waiting()
    guard: Callable[[Request], Answer | None] = lambda _: None
    requests: list[Request] = field(default_factory=list)
    jobs: dict[str, Json] = field(default_factory=dict)
    schedules: dict[str, Json] = field(default_factory=dict)
    operations: dict[str, int] = field(default_factory=dict)
    """Name → how often it will still be answered as not done."""
    courses: dict[str, list[Any]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    url: str = ""

    def answer(self, request: Request) -> Answer:
        """One request of somebody with a token."""
        self.requests.append(request)
        try:
            if f"Bearer {TOKEN}" not in request.headers.values():
                raise Refusal(401, "Request had invalid authentication credentials.")
            if (guarded := self.guard(request)) is not None:
                return guarded
            with self.lock:
                return as_json(self._route(request))
        except ValueError as error:
            return as_json(invalid("filter", f"can't be parsed: {error}").body, 400)
        except Refusal as refusal:
            return as_json(refusal.body, refusal.code)

    def calls(self, method: str, pattern: str) -> list[Request]:
        """Requests whose path matches."""
        return [each for each in self.requests if each.method == method and re.search(pattern, each.path)]

    def _route(self, request: Request) -> Json:
        path = request.path.removeprefix(f"/v1/{PARENT}/")
        if path == request.path:
            raise denied("Permission 'aiplatform.pipelineJobs.create' denied on resource (or it may not exist).")
        for method, pattern, act in _ROUTES:
            if request.method == method and (match := re.fullmatch(pattern, path)):
                return act(self, request, *match.groups())
        raise Refusal(404, "Method not found.")

    def create_job(self, request: Request) -> Json:
        """pipelineJobs.create."""
        identity = request.query.get("pipelineJobId", "")
        if not re.fullmatch(r"[a-z][-a-z0-9]{0,127}", identity):
            raise invalid("pipeline_job_id", f"'{identity}' does not match [a-z][-a-z0-9]{{0,127}}")
        if identity in self.jobs:
            raise Refusal(409, f"The PipelineJob {identity} already exists.")
        return self.add(identity, check_job(_body(request)))

    def add(self, identity: str, job: Json) -> Json:
        """A run, as its creation or a schedule makes it."""
        made = {**job, "name": f"projects/123/locations/{REGION}/pipelineJobs/{identity}", "state": "PIPELINE_STATE_PENDING"}
        self.jobs[identity] = {**made, "createTime": _now(len(self.jobs)), "updateTime": _now(len(self.jobs))}
        run = {"run_id": identity, "runtime_config": {"parameters": job["runtimeConfig"].get("parameterValues", {})}}
        self.courses[identity] = [run, list(self.play(run).frames)]
        return _struct(self.jobs[identity])

    def get_job(self, _: Request, identity: str) -> Json:
        """pipelineJobs.get: each look takes the run one frame further."""
        job = self._find(self.jobs, identity)
        run, frames = self.courses[identity]
        if job["state"] == "PIPELINE_STATE_CANCELLING":
            return _struct(self._end(job, "CANCELLED"))
        frame = frames.pop(0) if len(frames) > 1 else frames[0]
        frame.do(run)
        if job["state"].removeprefix("PIPELINE_STATE_") not in _OVER:
            job["state"] = f"PIPELINE_STATE_{frame.state}"
            job["jobDetail"] = {"taskDetails": task_details(frame.steps, frame.error)}
            if frame.state in _OVER:
                self._end(job, frame.state)
        return _struct(job)

    def list_jobs(self, request: Request) -> Json:
        """pipelineJobs.list: no details; what the mask names."""
        wanted = request.query.get("readMask", "")
        found = [job for job in self.jobs.values() if matches(job, request.query.get("filter", ""), _job_value)]
        answer = _page(found, request, "pipelineJobs")
        shown = [{key: value for key, value in job.items() if key != "jobDetail"} for job in answer["pipelineJobs"]]
        return {**answer, "pipelineJobs": [_masked(job, wanted) for job in shown]}

    def cancel_job(self, _: Request, identity: str) -> Json:
        """pipelineJobs.cancel."""
        job = self._find(self.jobs, identity)
        if job["state"].removeprefix("PIPELINE_STATE_") in _OVER:
            raise Refusal(400, "PipelineJob is in a terminal state.", status="FAILED_PRECONDITION")
        job["state"] = "PIPELINE_STATE_CANCELLING"
        return {}

    def delete_job(self, _: Request, identity: str) -> Json:
        """pipelineJobs.delete."""
        job = self._find(self.jobs, identity)
        if job["state"].removeprefix("PIPELINE_STATE_") not in _OVER:
            raise Refusal(400, "PipelineJob is running.", status="FAILED_PRECONDITION")
        del self.jobs[identity]
        return self._operation()

    def create_schedule(self, request: Request) -> Json:
        """schedules.create."""
        body = _body(request)
        _known(body, _SCHEDULE | {"maxConcurrentActiveRunCount"}, "schedule")
        for name in ("displayName", "cron", "maxConcurrentRunCount", "createPipelineJobRequest"):
            if not body.get(name):
                raise invalid(f"schedule.{name}", "is required")
        if not _CRON.fullmatch(body["cron"]):
            raise invalid("schedule.cron", "must have five fields")
        if body["createPipelineJobRequest"].get("parent") != PARENT:
            raise invalid("schedule.create_pipeline_job_request.parent", "is required")
        check_job(body["createPipelineJobRequest"]["pipelineJob"])
        identity, now = str(7_000_000_000 + len(self.schedules)), _now(len(self.schedules))
        made = {"startTime": now, **body, "name": f"projects/123/locations/{REGION}/schedules/{identity}", "state": "ACTIVE"}
        self.schedules[identity] = {**made, "createTime": now, "updateTime": now, "nextRunTime": now, "catchUp": False}
        return _struct(self.schedules[identity])

    def list_schedules(self, request: Request) -> Json:
        """schedules.list."""
        if request.query.get("filter") != "create_pipeline_job_request:*":
            raise invalid("filter", "is not supported by this fake")
        return _page([_struct(each) for each in self.schedules.values()], request, "schedules")

    def get_schedule(self, _: Request, identity: str) -> Json:
        """schedules.get."""
        return _struct(self._find(self.schedules, identity))

    def move_schedule(self, request: Request, identity: str, verb: str) -> Json:
        """schedules.pause and schedules.resume."""
        found = self._find(self.schedules, identity)
        before, after = ("ACTIVE", "PAUSED") if verb == "pause" else ("PAUSED", "ACTIVE")
        _known(body := _body(request), {"catchUp"} if verb == "resume" else set(), "request")
        if found["state"] != before:
            raise Refusal(400, f"Schedule is not {before}.", status="FAILED_PRECONDITION")
        found["state"], found["catchUp"] = after, body.get("catchUp", False)
        return {}

    def delete_schedule(self, _: Request, identity: str) -> Json:
        """schedules.delete."""
        self._find(self.schedules, identity)
        del self.schedules[identity]
        return self._operation()

    def get_operation(self, request: Request, identity: str) -> Json:
        """operations.get: not done at first."""
        left = self._find(self.operations, identity)
        self.operations[identity] = max(0, left - 1)
        name = request.path.removeprefix("/v1/")
        return {"name": name, "done": True, "response": {}} if left == 0 else {"name": name}

    def _operation(self) -> Json:
        identity = str(len(self.operations) + 1)
        self.operations[identity] = 1
        return {"name": f"{PARENT}/operations/{identity}", "metadata": {}}

    def _end(self, job: Json, state: str) -> Json:
        job["state"], job["endTime"] = f"PIPELINE_STATE_{state}", _now(900)
        if state == "FAILED":
            job["error"] = {"code": 9, "message": "The DAG failed because some tasks failed."}
        return job

    def _find(self, where: dict[str, Any], identity: str) -> Any:
        if identity not in where:
            raise Refusal(404, f"{identity} is not found.")
        return where[identity]


def check_job(job: Json) -> Json:
    """A PipelineJob that the service takes; else a `Refusal`."""
    _known(job, _JOB, "pipeline_job")
    spec, runtime = job.get("pipelineSpec"), job.get("runtimeConfig", {})
    if not spec or spec.get("schemaVersion") != "2.1.0" or "platforms" in spec:
        raise invalid("pipeline_job.pipeline_spec", "is no spec of schema 2.1.0")
    _known(runtime, {"gcsOutputDirectory", "parameterValues", "failurePolicy"}, "pipeline_job.runtime_config")
    if not runtime.get("gcsOutputDirectory", "").startswith("gs://"):
        raise invalid("pipeline_job.runtime_config.gcs_output_directory", "is required")
    given, declared = runtime.get("parameterValues", {}), spec["root"].get("inputDefinitions", {}).get("parameters", {})
    for name in given:
        if name not in declared:
            raise invalid(f"pipeline_job.runtime_config.parameter_values.{name}", "is not in the pipeline's inputs")
    for name, each in declared.items():
        if name not in given and not each.get("isOptional") and "defaultValue" not in each:
            raise invalid(f"pipeline_job.runtime_config.parameter_values.{name}", "is required")
    for text in (*job.get("labels", {}), *job.get("labels", {}).values()):
        if not _LABEL.fullmatch(text):
            raise invalid("pipeline_job.labels", f"'{text}' is no label")
    if len(job.get("displayName", "")) > 128:
        raise invalid("pipeline_job.display_name", "is too long")
    return job


def task_details(steps: Any, errors: Any) -> list[Json]:
    """The root, the groups around the steps, and the steps; cache hits are SKIPPED, what a condition excludes is NOT_TRIGGERED."""
    words = {"CACHED": "SKIPPED", "SKIPPED": "NOT_TRIGGERED"}
    found: list[Json] = [{"taskId": "1", "taskName": "dual-deploy-run", "state": "RUNNING"}]
    found += [{"taskId": "2", "parentTaskId": "1", "taskName": "exit-handler-1", "state": "RUNNING"}]
    for number, (step, state) in enumerate(steps.items(), start=3):
        name = step.replace("_", "-") if number % 2 else step
        task = {"taskId": str(number), "parentTaskId": "2", "taskName": name, "state": words.get(state, state)}
        if state != "PENDING":
            task |= {"startTime": _now(number), "endTime": _now(number + 60)}
        status = {"code": 9, "message": errors[step]} if step in errors else None
        if status and state in ("PENDING", "RUNNING"):
            task["pipelineTaskStatus"] = [{"state": state, "error": status, "updateTime": _now(number)}]
        elif status:
            task["error"] = status
        found.append(task)
    return found


def _job_value(job: Json, name: str) -> Any:
    if name.startswith("labels."):
        return job.get("labels", {}).get(name.removeprefix("labels."))
    known = {"display_name": job["displayName"], "state": job["state"], "pipeline_name": job["pipelineSpec"]["pipelineInfo"]["name"]}
    if name not in known:
        raise invalid("filter", f"'{name}' is not supported")
    return known[name]


def _page(found: list[Json], request: Request, key: str) -> Json:
    order = request.query.get("orderBy", "create_time desc")
    if order not in ("create_time", "create_time desc"):
        raise invalid("order_by", "is not supported")
    ordered = sorted(found, key=lambda each: each["createTime"], reverse=order.endswith("desc"))
    size, asked = int(request.query.get("pageSize", 100)), request.query.get("filter", "")
    begin, _, of = request.query.get("pageToken", "0|" + asked).partition("|")
    if of != asked:
        raise invalid("page_token", "belongs to another filter")
    after = int(begin) + size
    more = {"nextPageToken": f"{after}|{asked}"} if after < len(ordered) else {}
    return {key: ordered[int(begin) : after], **more}


def _masked(job: Json, mask: str) -> Json:
    paths = [path.split(".") for path in mask.split(",") if path]
    found = {path[0]: job[path[0]] for path in paths if path[0] in job}
    if "pipelineSpec" in found:
        found["pipelineSpec"] = {path[1]: job["pipelineSpec"].get(path[1]) for path in paths if path[0] == "pipelineSpec"}
    return found if mask else job


def _known(body: Json, names: set[str], where: str) -> None:
    if unknown := sorted(set(body) - names):
        raise invalid(where, f'Invalid JSON payload received. Unknown name "{unknown[0]}"')


def _struct(value: Any) -> Any:
    """Numbers as protobuf's Struct keeps them."""
    return json.loads(json.dumps(value), parse_int=float)


def _body(request: Request) -> Json:
    return json.loads(request.body or b"{}")


def _now(offset: int) -> str:
    time = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=offset)
    return f"{time:%Y-%m-%dT%H:%M:%S}.123456789Z"


_ID = r"([^/:]+)"
_ROUTES: list[tuple[str, str, Callable[..., Json]]] = [
    ("POST", "pipelineJobs", FakeVertex.create_job),
    ("GET", "pipelineJobs", FakeVertex.list_jobs),
    ("GET", f"pipelineJobs/{_ID}", FakeVertex.get_job),
    ("POST", f"pipelineJobs/{_ID}:cancel", FakeVertex.cancel_job),
    ("DELETE", f"pipelineJobs/{_ID}", FakeVertex.delete_job),
    ("POST", "schedules", FakeVertex.create_schedule),
    ("GET", "schedules", FakeVertex.list_schedules),
    ("GET", f"schedules/{_ID}", FakeVertex.get_schedule),
    ("POST", f"schedules/{_ID}:(pause|resume)", FakeVertex.move_schedule),
    ("DELETE", f"schedules/{_ID}", FakeVertex.delete_schedule),
    ("GET", f"operations/{_ID}", FakeVertex.get_operation),
]
