"""The backend `kubeflow`: runs and schedules of a Kubeflow Pipelines 2.x, through kfp's client."""

import contextlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from components.core.errors import ConflictError, DualError, MissingError, UsageError
from pipelines.submission.backend import Order, Page, Query, Run, Schedule, Version
from pipelines.submission.cron import Cron
from pipelines.submission.kubeflow.answers import to_run, to_schedule, to_version
from pipelines.submission.kubeflow.client import Connected, connect, silent
from pipelines.submission.kubeflow.cluster import RUN_LABEL
from pipelines.submission.kubeflow.connection import read_connection
from pipelines.submission.kubeflow.faults import shape_fault
from pipelines.submission.kubeflow.pods import pod_troubles, workflow_errors, workflow_troubles
from pipelines.submission.package import Input, Package, with_defaults
from pipelines.submission.trigger import Interval, Plan

_PAGE = 100
_DESCRIPTION_LIMIT = 255
_RUN_STATES = ("pending", "running", "succeeded", "failed", "skipped", "paused", "canceling", "canceled")


def open_service(file: Path | None = None, **flags: Any) -> "Kubeflow":
    """The installation that file, environment and flags name, asked once."""
    return Kubeflow(connect(read_connection(file, flags)))


class Kubeflow:
    """One installation; see `backend.Backend` for what each method promises."""

    target = "kubeflow"
    zoned = False

    def __init__(self, connected: Connected) -> None:
        """`connected` was answered already."""
        self.connected = connected
        self._kfp = connected.kfp
        self._scope = {"namespace": connected.namespace} if connected.namespace else {}
        self._blind = ""
        """Why the cluster can't be looked at; empty if it can, or was not tried."""

    def address(self) -> str:
        """Host, namespace and identity."""
        where = f", namespace {self.connected.namespace}" if self.connected.namespace else ""
        return f"{self.connected.host}{where}, with {self.connected.credentials.name}"

    def ensure_version(self, package: Package) -> Version:
        """Look for pipeline and version first; whoever makes one at the same time is no error."""
        pipeline = self._find_pipeline(package.name) or self._make_pipeline(package)
        name = package.version_name()
        if (found := self._find_version(pipeline, name)) is not None:
            return self._version(found, created=False)
        try:
            return self._version(self._upload(package, pipeline), created=True)
        except ConflictError:
            if (found := self._find_version(pipeline, name)) is None:
                raise
            return self._version(found, created=False)

    def find_version(self, pipeline: str, name: str = "") -> Version:
        """By display name, or the newest."""
        if (pipeline_id := self._find_pipeline(pipeline)) is None:
            raise MissingError(f"there is no pipeline '{pipeline}'", where=self.connected.host, fix="Upload one with: dual submit")
        if (found := self._find_version(pipeline_id, name)) is None:
            named = f"version '{name}'" if name else "version"
            raise MissingError(f"the pipeline '{pipeline}' has no {named}", where=self.connected.host, fix="Upload one with: dual submit")
        return self._version(found, created=False)

    def start(self, version: Version, order: Order) -> Run:
        """By reference to the version: what ran is what the server shows."""
        with silent():
            made = self._kfp.run_pipeline(
                experiment_id=self._experiment(order.experiment),
                job_name=order.name,
                params=dict(order.parameters),
                pipeline_id=version.pipeline,
                version_id=version.id,
                pipeline_root=order.pipeline_root or None,
                service_account=order.service_account or None,
            )
        return self._run(made)

    def run(self, run_id: str) -> Run:
        """With tasks; a run that somebody terminated is called so, whatever Kubeflow calls it (FAILED)."""
        try:
            run = self._run(self._kfp.get_run(run_id))
        except MissingError:
            raise MissingError(f"there is no run '{run_id}'", where=self.connected.host, fix="See: dual runs list") from None
        return self._explained(run) if run.state == "failed" else run

    def parameters(self, run: Run) -> Mapping[str, Any]:
        """The server keeps what was given; the defaults are in the version."""
        inputs: Mapping[str, Input] = {}
        if run.pipeline and run.version:
            with contextlib.suppress(MissingError):
                inputs = self._version(self._kfp.get_pipeline_version(run.pipeline, run.version), created=False).inputs
        return with_defaults(run.parameters, inputs)

    def runs(self, query: Query) -> Page:
        """Newest first, filtered by the server."""
        experiment = self._find_experiment(query.experiment) if query.experiment else None
        if query.experiment and experiment is None:
            raise MissingError(f"there is no experiment '{query.experiment}'", where=self.connected.host, fix="Check its name")
        scope = {"experiment_id": experiment.experiment_id} if experiment else self._scope
        # A page's token holds order and filter; named again, they would have to be the very same.
        order = {} if query.page else {"sort_by": "created_at desc", "filter": _run_filter(query)}
        answer = self._kfp.list_runs(page_token=query.page, page_size=query.limit, **order, **scope)
        return Page(tuple(self._run(each) for each in answer.runs or ()), answer.next_page_token or "")

    def retry(self, run_id: str) -> None:
        """The client of kfp has no method for it; its generated service has."""
        run = self.run(run_id)
        if run.state not in ("failed", "terminated"):
            raise UsageError(
                f"the run is {run.state}: only failed runs can be retried", where=run_id, fix="Start another with: dual submit"
            )
        self._kfp.runs.run_service_retry_run(run_id=run_id)

    def terminate(self, run_id: str) -> None:
        """The server answers 400 for a run that is over: that is said in words here."""
        run = self.run(run_id)
        if run.is_over():
            raise UsageError(f"the run is over: it {run.state}", where=run_id, fix="There is nothing to terminate")
        if run.state != "terminating":
            self._kfp.terminate_run(run_id)

    def archive(self, run_id: str, *, back: bool = False) -> None:
        """Archived runs are only hidden."""
        self.run(run_id)
        (self._kfp.unarchive_run if back else self._kfp.archive_run)(run_id)

    def delete(self, run_id: str) -> None:
        """Never by this command: Kubeflow hides what is archived, and what ran stays known."""
        raise UsageError("runs on Kubeflow are archived, not deleted", where=run_id, fix=f"dual runs archive {run_id}")

    def troubles(self, run: Run) -> list[tuple[str, str]]:
        """What pods and nodes say; nothing if the cluster can't be reached (`blindness` says why)."""
        if self._blind:
            return []
        try:
            cluster, namespace = self.connected.cluster(), self.connected.pods_namespace
            found = pod_troubles(cluster, namespace, run.id)
            with contextlib.suppress(DualError):
                found += [each for each in workflow_troubles(cluster, namespace, run.id) if each[0] not in {step for step, _ in found}]
            return found
        except DualError as error:
            self._blind = str(error)
            return []

    def blindness(self) -> str:
        """Why pods can't be looked at; empty if they can."""
        return self._blind

    def schedules(self) -> list[Schedule]:
        """All pages."""
        found, token = [], ""
        while True:
            answer = self._kfp.list_recurring_runs(page_token=token, page_size=_PAGE, sort_by="created_at", **self._scope)
            found += [self._schedule(each) for each in answer.recurring_runs or ()]
            token = answer.next_page_token or ""
            if not token:
                return found

    def create_schedule(self, name: str, version: Version, order: Order, plan: Plan, *, enabled: bool) -> Schedule:
        """Pinned to the version: without one, Kubeflow would run whatever is the newest when the time comes."""
        trigger = plan.trigger
        made = self._kfp.create_recurring_run(
            experiment_id=self._experiment(order.experiment),
            job_name=name,
            cron_expression=trigger.for_kubeflow() if isinstance(trigger, Cron) else None,
            interval_second=trigger.seconds if isinstance(trigger, Interval) else None,
            start_time=plan.start,
            end_time=plan.end,
            no_catchup=not plan.catch_up,
            max_concurrency=str(plan.max_concurrency),
            params=dict(order.parameters),
            pipeline_id=version.pipeline,
            version_id=version.id,
            pipeline_root=order.pipeline_root or None,
            service_account=order.service_account or None,
            enabled=enabled,
        )
        return self._schedule(made)

    def enable_schedule(self, schedule_id: str, *, enabled: bool) -> None:
        """Resume, or pause."""
        (self._kfp.enable_recurring_run if enabled else self._kfp.disable_recurring_run)(schedule_id)

    def delete_schedule(self, schedule_id: str) -> None:
        """Gone already is fine."""
        with contextlib.suppress(MissingError):
            self._kfp.delete_recurring_run(schedule_id)

    def close(self) -> None:
        """End the port-forward, if there is one."""
        self.connected.close()

    def _find_pipeline(self, name: str) -> str | None:
        with contextlib.suppress(MissingError):
            return self._kfp.pipelines.pipeline_service_get_pipeline_by_name(name, **self._scope).pipeline_id
        return None

    def _make_pipeline(self, package: Package) -> str:
        body = self._kfp.api_models.V2beta1Pipeline(
            display_name=package.name, name=package.name, description=package.description[:_DESCRIPTION_LIMIT], **self._scope
        )
        try:
            return self._kfp.pipelines.pipeline_service_create_pipeline(body).pipeline_id
        except ConflictError:
            if (found := self._find_pipeline(package.name)) is None:
                raise
            return found

    def _find_version(self, pipeline: str, name: str) -> Any:
        """The version of that name, or the newest; None if there is none."""
        only = _filter({"operation": "EQUALS", "key": "display_name", "stringValue": name}) if name else None
        answer = self._kfp.list_pipeline_versions(pipeline, page_size=1, sort_by="created_at desc", filter=only)
        return next(iter(answer.pipeline_versions or ()), None)

    def _upload(self, package: Package, pipeline: str) -> Any:
        with tempfile.TemporaryDirectory() as folder, silent():
            file = Path(folder) / "pipeline.yaml"
            file.write_text(package.text)
            return self._kfp.upload_pipeline_version(str(file), package.version_name(), pipeline_id=pipeline)

    def _version(self, found: Any, *, created: bool) -> Version:
        return to_version(found, self.connected.ui, created=created)

    def _experiment(self, name: str) -> str:
        """Id of the experiment; made if it is not there."""
        found = self._find_experiment(name)
        if found is None:
            with silent(), contextlib.suppress(ConflictError):
                found = self._kfp.create_experiment(name, **self._scope)
            found = found or self._find_experiment(name)
        if getattr(found, "storage_state", "") == "ARCHIVED":
            fix = "Restore it in the web page, or give another --experiment"
            raise UsageError(f"the experiment '{name}' is archived", where=self.connected.host, fix=fix)
        return found.experiment_id

    def _find_experiment(self, name: str) -> Any:
        try:
            return self._kfp.get_experiment(experiment_name=name, **self._scope)
        except ValueError:
            # How kfp's client says that there is none.
            return None

    def _run(self, found: Any) -> Run:
        if not getattr(found, "run_id", None):
            raise shape_fault(self.connected.host, "a run without an id")
        return to_run(found, self.connected.ui)

    def _schedule(self, found: Any) -> Schedule:
        return to_schedule(found, self.connected.ui, self.connected.connection.cron_timezone)

    def _explained(self, run: Run) -> Run:
        """A failed run with what only its Workflow still knows: whether somebody terminated it, and why its steps failed."""
        workflow = self._workflow(run.id)
        # Kubeflow terminates a run by giving its Workflow no time.
        terminated = _was_terminated(run) or workflow.get("spec", {}).get("activeDeadlineSeconds") == 0
        errors = workflow_errors(workflow)
        tasks = tuple(replace(task, error=task.error or errors.get(task.name, "")) for task in run.tasks)
        return replace(run, state="terminated" if terminated else run.state, tasks=tasks)

    def _workflow(self, run_id: str) -> dict[str, Any]:
        """The run's Workflow; empty if it is gone, or the cluster can't be reached."""
        if self._blind:
            return {}
        try:
            found = self.connected.cluster().workflows(self.connected.pods_namespace, f"{RUN_LABEL}={run_id}")
        except DualError as error:
            self._blind = str(error)
            return {}
        return found[0] if found else {}


def _was_terminated(run: Run) -> bool:
    return any(state in ("terminating", "terminated") for state, _ in run.history)


def _run_filter(query: Query) -> str:
    wanted: list[dict[str, Any]] = [
        {"operation": "EQUALS" if query.archived else "NOT_EQUALS", "key": "storage_state", "stringValue": "ARCHIVED"}
    ]
    if query.name:
        wanted.append({"operation": "IS_SUBSTRING", "key": "display_name", "stringValue": query.name})
    if query.state:
        wanted.append({"operation": "EQUALS", "key": "state", "stringValue": _kubeflow_state(query.state)})
    return _filter(*wanted)


def _kubeflow_state(state: str) -> str:
    word = {"terminating": "CANCELING", "terminated": "CANCELED"}.get(state, state.upper())
    if word.lower() not in _RUN_STATES:
        raise UsageError(f"'{state}' is no state", where="--state", fix=f"Known: {', '.join(_RUN_STATES)}")
    return word


def _filter(*predicates: Mapping[str, Any]) -> str:
    return json.dumps({"predicates": list(predicates)})
