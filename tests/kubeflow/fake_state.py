"""What a Kubeflow Pipelines knows and refuses: pipelines, versions, experiments, runs, recurring runs.

Behaviour and messages are read from backend/src/apiserver of kubeflow/pipelines 2.x (resource_manager.go, run_store.go, api_converter.go,
pipeline_upload_server.go).
"""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import uuid4

import yaml

from pipelines.submission.cron import from_kubeflow
from tests.kubeflow.lists import page_of
from tests.kubeflow.plays import Frame, Play, details, waiting
from tests.kubeflow.wire_types import Refusal, read, write

_RUN_KEYS = {"run_id", "display_name", "state", "storage_state", "created_at", "experiment_id", "recurring_run_id", "description"}
_OTHER_KEYS = {"display_name", "created_at", "description", "status", "storage_state"}
_ALIVE = ("PENDING", "RUNNING", "PAUSED", "RUNTIME_STATE_UNSPECIFIED")
_SETTLED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")


@dataclass
class State:
    """One installation. `play` makes the course of a run from what it was started with."""

    multi_user: bool = False
    play: Callable[[dict[str, Any]], Play] = lambda _: waiting()
    pipelines: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    recurring: dict[str, dict[str, Any]] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.RLock)
    _numbers: Any = field(default_factory=lambda: count(1))

    def new(self, **values: Any) -> dict[str, Any]:
        """Something with a time and a number of its own."""
        return {"created_at": datetime.now(UTC).replace(microsecond=0).isoformat(), "_number": next(self._numbers), **values}

    # Pipelines and versions

    def create_pipeline(self, body: Any) -> dict[str, Any]:
        """POST /pipelines: the name is unique in its namespace."""
        given = read(body, "V2beta1Pipeline")
        name = given.get("name") or given.get("display_name") or ""
        if not name:
            raise Refusal(400, "pipeline's name cannot be empty")
        namespace = self.namespace(given.get("namespace", ""), required=False)
        if any(each["name"] == name and each["namespace"] == namespace for each in self.pipelines.values()):
            raise Refusal(409, f"Failed to create a new pipeline. The name {name} already exists. Please specify a new name")
        made = self.new(
            pipeline_id=str(uuid4()),
            name=name,
            display_name=given.get("display_name") or name,
            description=given.get("description", ""),
            namespace=namespace,
        )
        self.pipelines[made["pipeline_id"]] = made
        return pipeline_view(made)

    def pipeline_by_name(self, name: str, namespace: str) -> dict[str, Any]:
        """GET /pipelines/names/{name}."""
        for each in self.pipelines.values():
            if each["name"] == name and each["namespace"] == self.namespace(namespace, required=False):
                return pipeline_view(each)
        raise Refusal(404, f"Failed to get a pipeline with name and namespace: ResourceNotFoundError: Pipeline {name} not found")

    def upload_version(self, query: dict[str, str], filename: str, content: bytes) -> dict[str, Any]:
        """POST /pipelines/upload_version: a file that is a pipeline, under a name that is new in its pipeline."""
        pipeline = query.get("pipelineid", "")
        if pipeline not in self.pipelines:
            raise Refusal(400, "Failed to create a pipeline version")
        spec = parse_package(filename, content)
        name = query.get("name") or query.get("display_name") or filename
        if any(each["pipeline_id"] == pipeline and each["name"] == name for each in self.versions.values()):
            raise Refusal(409, "Failed to create a pipeline version")
        made = self.new(
            pipeline_version_id=str(uuid4()),
            pipeline_id=pipeline,
            name=name,
            display_name=query.get("display_name") or name,
            description=query.get("description", ""),
            pipeline_spec=spec,
        )
        self.versions[made["pipeline_version_id"]] = made
        return version_view(made)

    def list_versions(self, pipeline: str, query: dict[str, str]) -> dict[str, Any]:
        """GET /pipelines/{id}/versions."""
        if pipeline not in self.pipelines:
            raise Refusal(404, f"Pipeline {pipeline} not found")
        mine = [each for each in self.versions.values() if each["pipeline_id"] == pipeline]
        found, token = page_of(mine, query, _OTHER_KEYS)
        views = [version_view(each) for each in found]
        return write("V2beta1ListPipelineVersionsResponse", pipeline_versions=views, next_page_token=token, total_size=len(mine))

    def get_version(self, pipeline: str, version: str) -> dict[str, Any]:
        """GET /pipelines/{id}/versions/{id}."""
        return version_view(self.version_of({"pipeline_id": pipeline, "pipeline_version_id": version}))

    def version_of(self, reference: dict[str, Any] | None) -> dict[str, Any]:
        """The version that a run or a schedule names."""
        wanted = (reference or {}).get("pipeline_version_id", "")
        if wanted not in self.versions:
            raise Refusal(404, f"Failed to fetch a template: PipelineVersion {wanted} not found")
        if self.versions[wanted]["pipeline_id"] != (reference or {}).get("pipeline_id"):
            raise Refusal(400, "the pipeline version belongs to another pipeline")
        return self.versions[wanted]

    # Experiments

    def create_experiment(self, body: Any) -> dict[str, Any]:
        """POST /experiments."""
        given = read(body, "V2beta1Experiment")
        name, namespace = given.get("display_name", ""), self.namespace(given.get("namespace", ""), required=True)
        if not name:
            raise Refusal(400, "Experiment name is empty. Please specify a valid experiment name.")
        if any(each["display_name"] == name and each["namespace"] == namespace for each in self.experiments.values()):
            raise Refusal(409, f"Failed to create a new experiment. The name {name} already exists. Please specify a new name")
        made = self.new(experiment_id=str(uuid4()), display_name=name, namespace=namespace, storage_state="AVAILABLE")
        self.experiments[made["experiment_id"]] = made
        return experiment_view(made)

    def list_experiments(self, query: dict[str, str]) -> dict[str, Any]:
        """GET /experiments."""
        namespace = self.namespace(query.get("namespace", ""), required=True)
        mine = [each for each in self.experiments.values() if each["namespace"] == namespace]
        found, token = page_of(mine, query, _OTHER_KEYS)
        views = [experiment_view(each) for each in found]
        return write("V2beta1ListExperimentsResponse", experiments=views, next_page_token=token, total_size=len(mine))

    # Runs

    def create_run(self, body: Any) -> dict[str, Any]:
        """POST /runs: parameters are taken as they are."""
        given = read(body, "V2beta1Run")
        if given.get("experiment_id") not in self.experiments:
            raise Refusal(404, f"Failed to fetch the experiment: Experiment {given.get('experiment_id')} not found")
        if not given.get("display_name"):
            raise Refusal(400, "The name of the run is empty. Please specify a valid name.")
        self.version_of(given.get("pipeline_version_reference"))
        made = self.new(run_id=str(uuid4()), **given, storage_state="AVAILABLE", finished_at=None)
        made |= {"_play": self.play(made), "_frame": 0, "state_history": []}
        self.runs[made["run_id"]] = made
        self._enter(made, made["_play"].frames[0])
        return run_view(made)

    def get_run(self, run_id: str) -> dict[str, Any]:
        """GET /runs/{id}: the answer, and then the next frame of its play."""
        run = self._known(run_id)
        view = run_view(run)
        self._advance(run)
        return view

    def list_runs(self, query: dict[str, str]) -> dict[str, Any]:
        """GET /runs, of an experiment, a namespace or all."""
        mine = list(self.runs.values())
        if experiment := query.get("experiment_id", ""):
            mine = [each for each in mine if each["experiment_id"] == experiment]
        else:
            self.namespace(query.get("namespace", ""), required=True)
        found, token = page_of(mine, query, _RUN_KEYS)
        views = [{**run_view(each), "run_details": None} for each in found]
        return write("V2beta1ListRunsResponse", runs=views, next_page_token=token, total_size=len(mine))

    def terminate(self, run_id: str) -> dict[str, Any]:
        """POST /runs/{id}:terminate: only what is alive; ends as FAILED, and the history does not say why."""
        run = self._known(run_id)
        if run["state"] not in _ALIVE:
            raise Refusal(400, f"Failed to terminate a run {run_id}. Row not found")
        run["state"] = "CANCELING"
        run["_play"] = Play([run["_play"].frames[run["_frame"]], Frame("FAILED", {**run["_play"].frames[run["_frame"]].steps})])
        run["_frame"] = 0
        return {}

    def retry(self, run_id: str) -> dict[str, Any]:
        """POST /runs/{id}:retry: only what failed; the play begins again."""
        run = self._known(run_id)
        if run["state"] != "FAILED":
            raise Refusal(400, "Workflow must be Failed/Error to retry: workflow cannot be retried")
        run |= {"_play": self.play(run), "_frame": 0, "finished_at": None}
        self._enter(run, run["_play"].frames[0])
        return {}

    def archive(self, run_id: str, *, back: bool) -> dict[str, Any]:
        """POST /runs/{id}:archive and :unarchive."""
        self._known(run_id)["storage_state"] = "AVAILABLE" if back else "ARCHIVED"
        return {}

    def _known(self, run_id: str) -> dict[str, Any]:
        if run_id not in self.runs:
            raise Refusal(404, f"Failed to fetch run {run_id}: ResourceNotFoundError: Run {run_id} not found")
        return self.runs[run_id]

    def _advance(self, run: dict[str, Any]) -> None:
        frames = run["_play"].frames
        if run["_frame"] + 1 < len(frames):
            run["_frame"] += 1
            self._enter(run, frames[run["_frame"]])

    def _enter(self, run: dict[str, Any], frame: Frame) -> None:
        frame.do(run)
        now = datetime.now(UTC).replace(microsecond=0).isoformat()
        run["state"] = frame.state
        if not run["state_history"] or run["state_history"][-1]["state"] != frame.state:
            run["state_history"].append({"update_time": now, "state": frame.state})
        if frame.state in _SETTLED:
            run["finished_at"] = now

    # Recurring runs

    def create_recurring(self, body: Any) -> dict[str, Any]:
        """POST /recurringruns: several may have one name."""
        given = read(body, "V2beta1RecurringRun")
        self.version_of(given.get("pipeline_version_reference"))
        if given.get("experiment_id") not in self.experiments:
            raise Refusal(404, f"Experiment {given.get('experiment_id')} not found")
        concurrency = int(given.get("max_concurrency") or 0)
        if not 1 <= concurrency <= 10:
            raise Refusal(400, f"Max concurrency of a recurring run must be at least 1 and at most 10. Received {concurrency}")
        _check_trigger(given.get("trigger") or {})
        made = self.new(recurring_run_id=str(uuid4()), **given, namespace=self.experiments[given["experiment_id"]]["namespace"])
        made |= {"max_concurrency": str(concurrency), "status": f"{given.get('mode', 'DISABLE')}D"}
        self.recurring[made["recurring_run_id"]] = made
        return recurring_view(made)

    def list_recurring(self, query: dict[str, str]) -> dict[str, Any]:
        """GET /recurringruns."""
        namespace = self.namespace(query.get("namespace", ""), required=True)
        mine = [each for each in self.recurring.values() if each["namespace"] == namespace]
        found, token = page_of(mine, query, _OTHER_KEYS)
        views = [recurring_view(each) for each in found]
        return write("V2beta1ListRecurringRunsResponse", recurring_runs=views, next_page_token=token, total_size=len(mine))

    def recurring_run(self, recurring_id: str) -> dict[str, Any]:
        """The recurring run, or 404."""
        if recurring_id not in self.recurring:
            raise Refusal(404, f"Failed to fetch recurring run {recurring_id}: Job {recurring_id} not found")
        return self.recurring[recurring_id]

    def enable_recurring(self, recurring_id: str, *, enabled: bool) -> dict[str, Any]:
        """POST /recurringruns/{id}:enable and :disable."""
        mode = "ENABLE" if enabled else "DISABLE"
        self.recurring_run(recurring_id).update(mode=mode, status=f"{mode}D")
        return {}

    def delete_recurring(self, recurring_id: str) -> dict[str, Any]:
        """DELETE /recurringruns/{id}."""
        self.recurring_run(recurring_id)
        del self.recurring[recurring_id]
        return {}

    def namespace(self, given: str, *, required: bool) -> str:
        """The namespace of a request, which only a multi-user installation has."""
        if self.multi_user and not given and required:
            raise Refusal(400, "Namespace cannot be empty")
        if not self.multi_user and given:
            raise Refusal(400, "In single-user mode, the request shouldn't contain a namespace")
        return given


def _check_trigger(trigger: dict[str, Any]) -> None:
    cron, periodic = trigger.get("cron_schedule"), trigger.get("periodic_schedule")
    if not cron and not periodic:
        raise Refusal(400, "a recurring run needs a trigger")
    if cron and from_kubeflow(cron.get("cron", "")) is None:
        raise Refusal(400, f"Schedule cron is not a supported format(https://godoc.org/github.com/robfig/cron). Error: {cron.get('cron')}")
    if periodic and int(periodic.get("interval_second") or 0) < 1:
        raise Refusal(400, f"Found invalid period schedule interval {periodic}. Set at interval to least 1 second")


def parse_package(filename: str, content: bytes) -> dict[str, Any]:
    """The spec in an uploaded file, as the server keeps and sends it: two documents become one with two keys."""
    if not re.search(r"\.(ya?ml|zip|tar\.gz|tgz)$", filename):
        raise Refusal(400, "Failed to read a pipeline spec file: unsupported file extension")
    try:
        documents = list(yaml.load_all(content, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.YAMLError as error:
        raise Refusal(400, f"Failed to read a pipeline spec file: {error}") from None
    if not documents or not isinstance(documents[0], dict) or "pipelineInfo" not in documents[0]:
        raise Refusal(400, "Failed to create a pipeline version: unknown template format")
    return {"pipeline_spec": documents[0], "platform_spec": documents[1]} if len(documents) > 1 else documents[0]


def _shown(values: dict[str, Any], model: str) -> dict[str, Any]:
    return write(model, **{key: value for key, value in values.items() if not key.startswith("_")})


def pipeline_view(pipeline: dict[str, Any]) -> dict[str, Any]:
    """As it is sent."""
    return _shown(pipeline, "V2beta1Pipeline")


def version_view(version: dict[str, Any]) -> dict[str, Any]:
    """As it is sent."""
    return _shown(version, "V2beta1PipelineVersion")


def experiment_view(experiment: dict[str, Any]) -> dict[str, Any]:
    """As it is sent."""
    return _shown(experiment, "V2beta1Experiment")


def run_view(run: dict[str, Any]) -> dict[str, Any]:
    """As it is sent, with its tasks."""
    frame = run["_play"].frames[run["_frame"]]
    tasks = write("V2beta1RunDetails", task_details=details(run["run_id"], frame))
    # Without a finish, the server sends the zero of its clock.
    return _shown({**run, "run_details": tasks, "finished_at": run["finished_at"] or "1970-01-01T00:00:00Z"}, "V2beta1Run")


def recurring_view(recurring: dict[str, Any]) -> dict[str, Any]:
    """As it is sent."""
    return _shown(recurring, "V2beta1RecurringRun")
