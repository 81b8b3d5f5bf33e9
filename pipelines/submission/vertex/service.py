"""The backend `vertex`: runs and schedules of Vertex AI Pipelines in one project and region."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.core.errors import DualError, MissingError, UnavailableError, UsageError
from components.core.vertex.connection import Connection, check_label, read_connection
from components.core.vertex.credentials import find_credentials
from components.core.vertex.faults import QuotaError
from components.core.vertex.wire import Json, Wire
from pipelines.submission.backend import Order, Page, Query, Run, Schedule, Version
from pipelines.submission.package import Package, read_inputs, with_defaults
from pipelines.submission.trigger import Plan
from pipelines.submission.vertex.answers import STATES, last, to_run, to_schedule
from pipelines.submission.vertex.orders import CATCH_UP, DIGEST, EXPERIMENT, Spec, new_job_id, pipeline_job, schedule, to_spec

_PAGE = 100
_LISTED = "name,displayName,state,createTime,startTime,endTime,labels,pipelineSpec.pipelineInfo"
"""What a list of runs holds: whole specs would be megabytes."""
_WORDS = {"canceling": "CANCELLING", "terminating": "CANCELLING", "canceled": "CANCELLED", "terminated": "CANCELLED"}


def open_service(file: Path | None = None, **flags: Any) -> "Vertex":
    """The project and region that file, environment and flags name; not asked yet."""
    connection = read_connection(file, flags)
    return Vertex(connection, Wire(connection, find_credentials(connection)))


class Vertex:
    """One project and region; see `backend.Backend` for what each method promises."""

    target = "vertex"
    zoned = True

    def __init__(self, connection: Connection, wire: Wire) -> None:
        """`connection` says what every run gets, `wire` asks."""
        self.connection, self._wire = connection, wire
        self._specs: dict[str, Spec] = {}
        """Versions that were named: Vertex keeps none."""

    def address(self) -> str:
        """Project, region and identity."""
        return f"project {self._wire.project}, {self._wire.region}, with {self._wire.credentials.name}"

    def ensure_version(self, package: Package) -> Version:
        """Nothing is uploaded: the spec goes with each run. `UsageError` for a package of another target."""
        spec, name = to_spec(package), package.version_name()
        self._specs[name] = spec
        return Version(id=name, name=name, pipeline=package.name, inputs=package.inputs, created=True)

    def find_version(self, pipeline: str, name: str = "") -> Version:
        """The spec of the newest run of that version, or of that pipeline."""
        digest = check_label(name.removeprefix(f"{pipeline}-"), "--version")
        wanted = f"labels.{DIGEST}={_quoted(digest)}" if digest else f"labels.{DIGEST}:*"
        query = {"filter": f"pipeline_name={_quoted(pipeline)} AND {wanted}", "orderBy": "create_time desc", "pageSize": 1}
        found = self._wire.ask("GET", "pipelineJobs", query={**query, "readMask": _LISTED}).get("pipelineJobs", ())
        if not found:
            fix = "Vertex keeps no packages, only those of runs: give --package, or compile one with: dual compile --target vertex"
            raise MissingError(f"no run here was of '{name or pipeline}'", where=self._where(), fix=fix)
        job = self._job(last(found[0]["name"]))
        spec = Spec(job["pipelineSpec"], job["labels"][DIGEST])
        identity = f"{pipeline}-{spec.digest}"
        self._specs[identity] = spec
        return Version(id=identity, name=identity, pipeline=pipeline, inputs=read_inputs(spec.content))

    def start(self, version: Version, order: Order) -> Run:
        """Under an id of our own, so that a request whose answer was lost is not a second run."""
        job_id = new_job_id(version.pipeline)
        body = pipeline_job(self._specs[version.id], order, self.connection)
        try:
            return self._run(self._wire.ask("POST", "pipelineJobs", body, {"pipelineJobId": job_id}))
        except QuotaError:
            raise
        except UnavailableError as error:
            with contextlib.suppress(DualError):
                return self.run(job_id)
            raise error from None

    def run(self, run_id: str) -> Run:
        """With tasks."""
        return self._run(self._job(run_id))

    def parameters(self, run: Run) -> Mapping[str, Any]:
        """Those that were given, and the defaults in the spec that it ran."""
        job = self._job(run.id)
        given = job.get("runtimeConfig", {}).get("parameterValues", {})
        return with_defaults(given, read_inputs(job.get("pipelineSpec", {})))

    def runs(self, query: Query) -> Page:
        """Newest first, filtered by the server."""
        if query.archived:
            raise UsageError("Vertex archives no runs", where="--archived", fix="Leave it away")
        asked = {"filter": _run_filter(query), "orderBy": "create_time desc", "pageSize": query.limit, "pageToken": query.page}
        answer = self._wire.ask("GET", "pipelineJobs", query={**asked, "readMask": _LISTED})
        return Page(tuple(self._run(each) for each in answer.get("pipelineJobs", ())), answer.get("nextPageToken", ""))

    def retry(self, run_id: str) -> None:
        """Never: the v1 API has no such method."""
        fix = "Start another with: dual submit --target vertex; steps whose inputs are the same are taken from the store"
        raise UsageError("Vertex AI can't retry a run", where=run_id, fix=fix)

    def terminate(self, run_id: str) -> None:
        """Vertex tries to; what a step does until it ends is its own."""
        run = self.run(run_id)
        if run.is_over():
            raise UsageError(f"the run is over: it {run.state}", where=run_id, fix="There is nothing to terminate")
        if run.state != "terminating":
            self._wire.ask("POST", f"pipelineJobs/{run_id}:cancel", {})

    def archive(self, run_id: str, *, back: bool = False) -> None:
        """Never: Vertex knows no archive."""
        del back
        fix = f"Delete it for good with: dual runs delete {run_id} --target vertex"
        raise UsageError("Vertex archives no runs", where=run_id, fix=fix)

    def delete(self, run_id: str) -> None:
        """The run, not what it left in the store."""
        run = self.run(run_id)
        if not run.is_over():
            fix = f"End it first: dual runs terminate {run_id} --target vertex"
            raise UsageError(f"the run is {run.state}", where=run_id, fix=fix)
        self._wire.finish(self._wire.ask("DELETE", f"pipelineJobs/{run_id}"))

    def troubles(self, run: Run) -> list[tuple[str, str]]:
        """The errors that Vertex is trying to overcome in steps that are not over (no machine of that kind, for example)."""
        return [(task.name, task.error) for task in run.tasks if task.error and task.state in ("pending", "running")]

    def blindness(self) -> str:
        """Never blind: the service itself reports what there is."""
        return ""

    def close(self) -> None:
        """End the connections."""
        self._wire.close()

    def schedules(self) -> list[Schedule]:
        """All pages; only those that start pipelines."""
        query = {"filter": "create_pipeline_job_request:*", "orderBy": "create_time", "pageSize": _PAGE}
        return [self._schedule(each) for each in self._wire.pages("schedules", "schedules", query)]

    def create_schedule(self, name: str, version: Version, order: Order, plan: Plan, *, enabled: bool) -> Schedule:
        """A paused one is made and then paused; if that fails it is deleted, for it would start runs that nobody wants."""
        body = schedule(name, self._specs[version.id], order, plan, self.connection, self._wire.parent)
        made = self._schedule(self._wire.ask("POST", "schedules", body))
        if enabled:
            return made
        try:
            self._wire.ask("POST", f"schedules/{made.id}:pause", {})
        except DualError:
            self.delete_schedule(made.id)
            raise
        return self._schedule(self._wire.ask("GET", f"schedules/{made.id}"))

    def enable_schedule(self, schedule_id: str, *, enabled: bool) -> None:
        """Resume (missed runs too, if the schedule was made with catch-up), or pause; nothing if it is so already."""
        found = self._wire.ask("GET", f"schedules/{schedule_id}")
        state, wanted = found.get("state"), "ACTIVE" if enabled else "PAUSED"
        if state == "COMPLETED":
            what = "the schedule is over: Vertex neither pauses nor resumes it"
            raise UsageError(what, where=schedule_id, fix="Make it anew: dual schedule create … --replace")
        if state == wanted:
            return
        labels = found.get("createPipelineJobRequest", {}).get("pipelineJob", {}).get("labels", {})
        body = {"catchUp": labels.get(CATCH_UP) == "true"} if enabled else {}
        self._wire.ask("POST", f"schedules/{schedule_id}:{'resume' if enabled else 'pause'}", body)

    def delete_schedule(self, schedule_id: str) -> None:
        """Gone already is fine."""
        with contextlib.suppress(MissingError):
            self._wire.finish(self._wire.ask("DELETE", f"schedules/{schedule_id}"))

    def _job(self, run_id: str) -> Json:
        try:
            return self._wire.ask("GET", f"pipelineJobs/{run_id}")
        except MissingError:
            raise MissingError(f"there is no run '{run_id}'", where=self._where(), fix="See: dual runs list --target vertex") from None

    def _run(self, job: Json) -> Run:
        if not job.get("name"):
            raise UsageError("answers with a run without a name", where=self._wire.endpoint, fix="Check --host")
        return to_run(job, self._wire.project, self._wire.region)

    def _schedule(self, found: Json) -> Schedule:
        return to_schedule(found, self._wire.project, self._wire.region)

    def _where(self) -> str:
        return f"project {self._wire.project}, {self._wire.region}"


def _run_filter(query: Query) -> str:
    """https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.pipelineJobs/list."""
    parts = []
    if query.experiment:
        parts.append(f"labels.{EXPERIMENT}={_quoted(query.experiment)}")
    if query.name:
        parts.append(f"display_name:{_quoted(f'*{query.name}*')}")
    if query.state:
        parts.append(f"state={_quoted(_state(query.state))}")
    return " AND ".join(parts)


def _state(word: str) -> str:
    state = _WORDS.get(word.lower(), word.upper())
    if state not in STATES:
        known = ", ".join(each.lower() for each in STATES)
        raise UsageError(f"'{word}' is no state of Vertex'", where="--state", fix=f"Known: {known}")
    return f"PIPELINE_STATE_{state}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
