"""Workers as the worker pools of a custom job on Vertex AI: started, watched and cancelled by the step. Not run against Google's service.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.customJobs and …/v1/CustomJobSpec
"""

import os
import time
from collections.abc import Iterator
from typing import Any, Self
from uuid import uuid4

from components.core.errors import UnavailableError, UsageError
from components.core.vertex.connection import read_connection
from components.core.vertex.credentials import find_credentials
from components.core.vertex.wire import Json, Wire
from components.training.distributed.coordinate import WorkersError
from components.training.distributed.settings import WorkerPoolSettings, WorkersSettings
from components.training.train import Job

TRAINING, ATTEMPT = "dual-training", "dual-attempt"
"""Labels: which training a job does, and which start of it this is."""
_OVER = frozenset({"SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED"})
_CANCELLED_WITHIN = 300.0
_WAIT = 2.0


class Pools:
    """As `Crew` says. Vertex ends a job when a worker fails: the step starts another, which goes on from the checkpoint."""

    pause = 5.0

    def __init__(self, job: Job, order: str) -> None:
        """Nothing is made yet. `UsageError` without a region, an image, or a store that workers on Vertex reach."""
        self._job, self._order, self._workers = job, order, job.settings.workers
        _require(self._workers.vertex, job.record.store.uri)
        chosen = self._workers.vertex
        connection = read_connection(None, {"project": chosen.project, "region": chosen.region})
        self._wire = Wire(connection, find_credentials(connection))
        self._training, self._name, self._state = job.key()[:16], "", ""
        self.restarts: list[str] = []

    def __enter__(self) -> Self:
        """Start the job; those of an earlier attempt of this step are cancelled first, and are over."""
        self._await_end(list(self._active()))
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel what still runs; Vertex ends the machines."""
        try:
            if self._name and self._look() not in _OVER:
                self._wire.ask("POST", f"{self._name}:cancel", {})
        finally:
            self._wire.close()

    def look(self) -> None:
        """As `Crew` says."""
        try:
            state = self._look()
        except UnavailableError as error:
            # The workers don't need the step: it looks again.
            self._job.record.say(f"warning: {error}")
            return
        if state in _OVER and state != "SUCCEEDED" and not self._job.is_done():
            self._again(state)

    def describe(self) -> str:
        """As `Crew` says."""
        return f"custom job {self._name} is {self._state or 'not made'}"

    def _look(self) -> str:
        self._found = self._wire.ask("GET", self._name)
        state = str(self._found.get("state", "")).removeprefix("JOB_STATE_")
        if state != self._state:
            self._state = state
            self._job.record.say(f"{self.describe()}{_why(self._found)}")
        return state

    def _again(self, state: str) -> None:
        allowed = self._workers.restarts
        if state == "CANCELLED" or len(self.restarts) >= allowed:
            fix = "Look at its logs in Google Cloud's console; remove the reason, or raise workers.restarts; then run again"
            raise WorkersError(f"{self.describe()}{_why(self._found)}", where=self._job.record.step, fix=fix)
        self.restarts.append(f"{self.describe()}{_why(self._found)}: another was started ({len(self.restarts) + 1} of {allowed})")
        self._job.record.say(self.restarts[-1])
        self._start()

    def _start(self) -> None:
        """Make one job. An answer that is lost is looked up: the same request again would be a second job."""
        attempt, self._state = uuid4().hex, ""
        try:
            made = self._wire.ask("POST", "customJobs", self._body(attempt))
        except UnavailableError:
            made = next(iter(self._with_label(ATTEMPT, attempt)), None)
            if made is None:
                raise
        self._name = str(made["name"])
        self._job.record.say(f"custom job {self._name} is made")

    def _body(self, attempt: str) -> Json:
        return {
            "displayName": f"dual-{self._job.record.step.replace('_', '-')}-{self._training}",
            "jobSpec": job_spec(self._workers, [self._job.record.store.uri, self._order]),
            "labels": {TRAINING: self._training, ATTEMPT: attempt},
        }

    def _active(self) -> Iterator[Json]:
        for found in self._with_label(TRAINING, self._training):
            if str(found.get("state", "")).removeprefix("JOB_STATE_") not in _OVER:
                yield found

    def _with_label(self, label: str, value: str) -> Iterator[Json]:
        return self._wire.pages("customJobs", "customJobs", {"filter": f'labels.{label}="{value}"', "pageSize": 100})

    def _await_end(self, jobs: list[Json]) -> None:
        """Two sets of workers would write the same checkpoints."""
        for each in jobs:
            self._job.record.say(f"custom job {each['name']} of an earlier attempt is cancelled")
            self._wire.ask("POST", f"{each['name']}:cancel", {})
        deadline = time.monotonic() + _CANCELLED_WITHIN
        while left := list(self._active()):
            if time.monotonic() > deadline:
                what = f"custom jobs of an earlier attempt do not end: {', '.join(each['name'] for each in left)}"
                raise WorkersError(what, where=self._wire.parent, fix="Cancel them, then run again")
            time.sleep(_WAIT)


def job_spec(workers: WorkersSettings, arguments: list[str]) -> Json:
    """The job: the first pool is the chief, the second the other workers; Vertex tells each by $TF_CONFIG."""
    chosen = workers.vertex
    strategy = {"strategy": "SPOT"} if chosen.spot else {}
    return {
        "workerPoolSpecs": [_pool(chosen, count, arguments) for count in (1, workers.count - 1)],
        # One that is restarted alone would wait for peers that are in the middle of an epoch.
        "scheduling": {"timeout": f"{round(chosen.hours * 3600)}s", "restartJobOnWorkerRestart": True, **strategy},
        **({"serviceAccount": chosen.service_account} if chosen.service_account else {}),
    }


def _pool(chosen: WorkerPoolSettings, count: int, arguments: list[str]) -> Json:
    machine: dict[str, Any] = {"machineType": chosen.machine_type}
    if chosen.accelerator_count:
        machine |= {"acceleratorType": chosen.accelerator_type, "acceleratorCount": chosen.accelerator_count}
    command = ["python", "-m", "components.training.distributed.worker"]
    env = [{"name": name, "value": value} for name, value in chosen.env.items()]
    container = {"imageUri": chosen.image, "command": command, "args": arguments, "env": env}
    return {"machineSpec": machine, "replicaCount": str(count), "containerSpec": container}


def _require(chosen: WorkerPoolSettings, store: str) -> None:
    where = "settings key workers.vertex"
    if not chosen.image:
        raise UsageError("no image is named", where=f"{where}.image", fix="Give dual-trainer in Artifact Registry, by its digest")
    if not chosen.region and not os.environ.get("DUAL_VERTEX_REGION"):
        raise UsageError("no region is named", where=f"{where}.region", fix="Set it, for example to europe-west4")
    if not store.startswith("gs://"):
        raise UsageError(f"workers on Vertex AI can't reach the store {store}", where=where, fix="Use a store at gs://")


def _why(found: Json) -> str:
    message = str((found.get("error") or {}).get("message", "")).strip()
    return f" ({message})" if message else ""
