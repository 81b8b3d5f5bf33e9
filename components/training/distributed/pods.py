"""Workers as pods of an Indexed Job: started, watched and removed by the step."""

import os
import time
from collections.abc import Iterator
from typing import Self

from components.core.errors import UsageError
from components.training.distributed.coordinate import WorkersError
from components.training.distributed.job import ORDER, Place, job_body, labels, service_body
from components.training.train import Job
from components.validate_infra.pod import owner_reference
from serving.rollout.cluster.api import Api, ChangedError, Json, connect
from serving.rollout.cluster.names import query
from serving.rollout.cluster.trouble import Logs, explain, troubles_of_one

_GONE_WITHIN = 120.0
_PAUSE = 1.0


class Pods:
    """As `Crew` says."""

    pause = 2.0

    def __init__(self, job: Job, order: str) -> None:
        """Nothing is made yet."""
        self._job, self._workers = job, job.settings.workers
        self._api = connect(self._workers.kubernetes.namespace or _own_namespace())
        self._name = f"dual-train-{job.key()[:16]}"
        self._order, self._logs = order, Logs(self._api)
        self._told: set[str] = set()
        self.restarts: list[str] = []

    def __enter__(self) -> Self:
        """Make the Job and the Service; those of an earlier attempt of this step go first, with their pods."""
        self._remove()
        self._await_end()
        step = _own_pod(self._api)
        place = Place(self._name, self._job.record.store.uri, self._order, step, owner_reference(self._api, os.environ))
        made = self._create("Job", job_body(place, self._workers))
        self._create("Service", service_body(self._name, self._workers.kubernetes.port, _reference(made)))
        self._job.record.say(f"Job {self._api.namespace}/{self._name} is made: kubectl -n {self._api.namespace} logs -f job/{self._name}")
        return self

    def __exit__(self, *_: object) -> None:
        """Delete both; Kubernetes removes the pods."""
        self._remove()

    def look(self) -> None:
        """As `Crew` says."""
        job = self._api.find("Job", self._name)
        if job is None or job["metadata"].get("deletionTimestamp"):
            fix = "Find out who (kubectl get events), then run again: it goes on from the last checkpoint"
            raise WorkersError(f"Job {self._name} was deleted by somebody", where=self._job.record.step, fix=fix)
        pods = list(self._pods())
        for condition in (job.get("status") or {}).get("conditions", []):
            # Said before it is true, while Kubernetes ends the rest.
            if condition["type"] in ("FailureTarget", "Failed") and condition["status"] == "True":
                raise self._failed(condition, pods)
        for pod in pods:
            self._tell(pod)

    def describe(self) -> str:
        """As `Crew` says."""
        return "; ".join(self._state(pod) for pod in self._pods()) or f"Job {self._name} has no pods"

    def _pods(self) -> Iterator[Json]:
        return self._api.list("Pod", query(labels(self._name)))

    def _tell(self, pod: Json) -> None:
        """Say once what a pod lacks, and once that it failed."""
        name, phase = pod["metadata"]["name"], (pod.get("status") or {}).get("phase")
        if phase in ("Succeeded", "Running"):
            return
        found = troubles_of_one(self._logs, pod)
        sentence = f"{explain(found)} (Kubernetes starts it again)" if phase == "Failed" else explain(found) if found else ""
        if sentence and f"{name}: {sentence}" not in self._told:
            self._told.add(f"{name}: {sentence}")
            self._job.record.say(sentence)
            if phase == "Failed":
                self.restarts.append(f"Pod {name} failed and was started again")
        if phase == "Pending" and any(each.final for each in found):
            raise WorkersError(explain(found), where=f"Job {self._name}", fix="Remove the reason, then run again")

    def _failed(self, condition: Json, pods: list[Json]) -> WorkersError:
        ended = [pod for pod in pods if (pod.get("status") or {}).get("phase") == "Failed"]
        why = "; ".join(self._state(pod) for pod in ended) or condition.get("message", "")
        what = f"Job {self._name} failed ({condition.get('reason', '')}): {why}"
        return WorkersError(what, where=self._job.record.step, fix="Remove the reason, or raise workers.restarts; then run again")

    def _state(self, pod: Json) -> str:
        found = troubles_of_one(self._logs, pod)
        phase = (pod.get("status") or {}).get("phase", "Pending")
        return explain(found) if found else f"Pod {pod['metadata']['name']} is {phase}"

    def _create(self, kind: str, body: Json) -> Json:
        try:
            return self._api.create(kind, body)
        except ChangedError:
            # The name is this training's alone: an answer was lost, and the call repeated.
            return self._api.get(kind, self._name)

    def _remove(self) -> None:
        # The Service is the Job's; by its own name too, if the step died between the two.
        for kind in ("Job", "Service"):
            found = self._api.find(kind, self._name)
            if found is not None:
                self._delete(kind, found)

    def _delete(self, kind: str, found: Json) -> None:
        if kind == "Job" and found["metadata"].get("annotations", {}).get(ORDER) != self._order:
            what = f"there is a Job {self._name} that is not of this training"
            raise UsageError(what, where=f"namespace {self._api.namespace}", fix="Delete it, or use another namespace")
        try:
            self._api.delete(kind, found, as_read=False)
        except ChangedError:
            return

    def _await_end(self) -> None:
        """Two sets of workers would write the same checkpoints."""
        deadline = time.monotonic() + _GONE_WITHIN
        while left := [pod["metadata"]["name"] for pod in self._pods()]:
            if time.monotonic() > deadline:
                what = f"pods of an earlier attempt are still there: {', '.join(left)}"
                raise WorkersError(what, where=f"namespace {self._api.namespace}", fix="Look why they don't end, then run again")
            time.sleep(_PAUSE)


def _own_pod(api: Api) -> Json | None:
    reference = owner_reference(api, os.environ)
    return api.find_allowed("Pod", reference["name"]) if reference else None


def _own_namespace() -> str:
    return os.environ.get("KFP_NAMESPACE", "")


def _reference(job: Json) -> Json:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": job["metadata"]["name"],
        "uid": job["metadata"]["uid"],
        "blockOwnerDeletion": False,
    }
