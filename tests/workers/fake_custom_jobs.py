"""Vertex AI's customJobs in this process: the documented v1 REST, and what it refuses.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.customJobs
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.kubeflow.fake_kfp import Answer, Request, as_json
from tests.vertex.fake_vertex import PARENT, TOKEN, Refusal, invalid
from tests.vertex.filters import matches
from tests.vertex.rest_checks import known, label_only, last, named, page

Json = dict[str, Any]
_JOB = {"displayName", "jobSpec", "labels", "encryptionSpec"}
_SPEC = {"workerPoolSpecs", "scheduling", "serviceAccount", "network", "baseOutputDirectory", "tensorboard", "enableWebAccess"}
_POOL = {"machineSpec", "replicaCount", "containerSpec", "pythonPackageSpec", "diskSpec", "nfsMounts"}
_SCHEDULING = {"timeout", "restartJobOnWorkerRestart", "disableRetries", "strategy", "maxWaitDuration"}
_MACHINE = {"machineType", "acceleratorType", "acceleratorCount"}
_CONTAINER = {"imageUri", "command", "args", "env"}
_OVER = ("SUCCEEDED", "FAILED", "CANCELLED")


@dataclass
class FakeCustomJobs:
    """`course` says which states a job takes, look by look; the last one stays."""

    course: Callable[[Json], list[str]] = lambda _: ["PENDING", "RUNNING"]
    guard: Callable[[Request], Answer | None] = lambda _: None
    jobs: dict[str, Json] = field(default_factory=dict)
    left: dict[str, list[str]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def answer(self, request: Request) -> Answer:
        """One request of somebody with a token."""
        self.requests.append(request)
        try:
            if f"Bearer {TOKEN}" not in request.headers.values():
                raise Refusal(401, "Request had invalid authentication credentials.")
            return self.guard(request) or as_json(self._route(request))
        except Refusal as refusal:
            return as_json(refusal.body, refusal.code)

    def _route(self, request: Request) -> Json:
        path = request.path.removeprefix("/v1/")
        if (request.method, path) == ("POST", f"{PARENT}/customJobs"):
            return self.create(json.loads(request.body))
        if (request.method, path) == ("GET", f"{PARENT}/customJobs"):
            found = [job for job in self.jobs.values() if matches(job, request.query.get("filter", ""), label_only)]
            answer = json.loads(json.dumps(page(found, request, "customJobs", most=1)))
            for each in answer["customJobs"]:
                self._settle(self.jobs[last(each["name"])])
            return answer
        if match := re.fullmatch(rf"{PARENT}/customJobs/(\d+)(:cancel)?", path):
            job = self._find(match[1])
            return self._cancel(job) if match[2] and request.method == "POST" else self._look(job)
        raise Refusal(404, "Method not found.")

    def create(self, body: Json) -> Json:
        """customJobs.create."""
        known(body, _JOB, "custom_job")
        named(body, "custom_job")
        _check_spec(body["jobSpec"])
        name = f"{PARENT}/customJobs/{1000 + len(self.jobs)}"
        self.jobs[last(name)] = {**body, "name": name, "state": "JOB_STATE_QUEUED"}
        self.left[last(name)] = self.course(body)
        return self.jobs[last(name)]

    def _find(self, identity: str) -> Json:
        if identity not in self.jobs:
            raise Refusal(404, f"CustomJob {identity} is not found.")
        return self.jobs[identity]

    def _look(self, job: Json) -> Json:
        left = self.left[last(job["name"])]
        if job["state"] == "JOB_STATE_CANCELLING":
            self._settle(job)
        elif job["state"].removeprefix("JOB_STATE_") not in _OVER:
            job["state"] = f"JOB_STATE_{left.pop(0) if len(left) > 1 else left[0]}"
        if job["state"] == "JOB_STATE_FAILED":
            job["error"] = {"code": 3, "message": "The replica workerpool1-0 exited with a non-zero status of 75."}
        return job

    def _settle(self, job: Json) -> None:
        if job["state"] == "JOB_STATE_CANCELLING":
            job["state"] = "JOB_STATE_CANCELLED"

    def _cancel(self, job: Json) -> Json:
        if job["state"].removeprefix("JOB_STATE_") in _OVER:
            raise Refusal(400, f"The CustomJob is in the state {job['state']} and can't be cancelled.", status="FAILED_PRECONDITION")
        job["state"] = "JOB_STATE_CANCELLING"
        return {}


def _check_spec(spec: Json) -> None:
    known(spec, _SPEC, "custom_job.job_spec")
    known(spec.get("scheduling", {}), _SCHEDULING, "custom_job.job_spec.scheduling")
    if not re.fullmatch(r"\d+s", spec.get("scheduling", {}).get("timeout", "1s")):
        raise invalid("custom_job.job_spec.scheduling.timeout", "is no duration")
    pools = spec.get("workerPoolSpecs", [])
    if not pools or pools[0].get("replicaCount") != "1":
        raise invalid("custom_job.job_spec.worker_pool_specs[0].replica_count", "the first pool has one replica")
    for number, pool in enumerate(pools):
        _check_pool(pool, f"custom_job.job_spec.worker_pool_specs[{number}]")


def _check_pool(pool: Json, where: str) -> None:
    known(pool, _POOL, where)
    known(pool["machineSpec"], _MACHINE, f"{where}.machine_spec")
    known(pool["containerSpec"], _CONTAINER, f"{where}.container_spec")
    if not isinstance(pool["replicaCount"], str) or int(pool["replicaCount"]) < 1:
        raise invalid(f"{where}.replica_count", "must be a positive int64")
    if not pool["containerSpec"].get("imageUri"):
        raise invalid(f"{where}.container_spec.image_uri", "is required")
