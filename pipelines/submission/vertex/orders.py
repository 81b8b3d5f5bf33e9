"""What is sent: a PipelineJob and a Schedule.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.pipelineJobs and …/projects.locations.schedules

Vertex keeps no packages: the pipeline's spec goes with every run and every schedule, under labels that say which content it is.
"""

import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from components.core.errors import UsageError
from components.core.vertex.connection import Connection, check_label
from pipelines.submission.backend import Order
from pipelines.submission.cron import Cron
from pipelines.submission.package import Package, read_inputs, with_defaults
from pipelines.submission.trigger import Interval, Plan

Json = dict[str, Any]
DIGEST, EXPERIMENT, CATCH_UP = "dual-digest", "dual-experiment", "dual-catch-up"
DIGITS = 12
"""Of a package's digest, as in the name of its version."""
_ID_LENGTH = 128
_NAME_LENGTH = 128


@dataclass(frozen=True)
class Spec:
    """A pipeline that can be sent."""

    content: Json
    digest: str
    """The first `DIGITS` of the package's."""


def to_spec(package: Package) -> Spec:
    """What Vertex takes of a package; `UsageError` for one that was compiled for another target."""
    documents = package.documents()
    fix = "Compile it for Vertex: dual compile --target vertex -o pipeline.yaml"
    if len(documents) > 1:
        raise UsageError("the package has a second document, for Kubernetes, which Vertex refuses", where=package.name, fix=fix)
    kinds = {_accelerator(each) for each in documents[0].get("deploymentSpec", {}).get("executors", {}).values()} - {""}
    if foreign := sorted(kind for kind in kinds if "/" in kind):
        raise UsageError(
            f"'{foreign[0]}' is no accelerator of Vertex', which are called NVIDIA_L4 and the like", where=package.name, fix=fix
        )
    return Spec(documents[0], package.digest[:DIGITS])


def new_job_id(pipeline: str, now: datetime | None = None) -> str:
    """An id that nobody has: the pipeline's name, the time, six random digits; as Vertex wants it, [a-z][-a-z0-9]{0,127}."""
    end = f"-{now or datetime.now(UTC):%Y%m%d%H%M%S}-{secrets.token_hex(3)}"
    word = re.sub(r"[^a-z0-9]+", "-", pipeline.lower()).strip("-")
    word = word if re.match("[a-z]", word) else f"run-{word}".rstrip("-")
    return word[: _ID_LENGTH - len(end)] + end


def pipeline_job(spec: Spec, order: Order, connection: Connection, *, labels: Mapping[str, str] | None = None) -> Json:
    """The body of a PipelineJob; `UsageError` for what Vertex would refuse, or take and let fail later."""
    root = order.pipeline_root or spec.content.get("defaultPipelineRoot", "")
    _check_places(root, with_defaults(order.parameters, read_inputs(spec.content)))
    job: Json = {
        "displayName": _name(order.name),
        "pipelineSpec": _uncached(spec.content),
        "runtimeConfig": {"gcsOutputDirectory": root, "parameterValues": dict(order.parameters)},
        "labels": {**connection.labels, **_labels(spec, order), **(labels or {})},
    }
    optional = {"serviceAccount": order.service_account, "network": connection.network}
    return {**job, **{key: value for key, value in optional.items() if value}}


def schedule(name: str, spec: Spec, order: Order, plan: Plan, connection: Connection, parent: str) -> Json:
    """The body of a Schedule; `UsageError` for what Vertex has no words for."""
    label = {CATCH_UP: "true"} if plan.catch_up else {}
    body: Json = {
        "displayName": _name(name),
        "cron": _cron(plan),
        # The first limits the requests that start runs, the second the runs: the second is what is meant.
        "maxConcurrentRunCount": str(plan.max_concurrency),
        "maxConcurrentActiveRunCount": str(plan.max_concurrency),
        "allowQueueing": plan.catch_up,
        "createPipelineJobRequest": {"parent": parent, "pipelineJob": pipeline_job(spec, order, connection, labels=label)},
    }
    if plan.start and plan.start <= datetime.now(UTC):
        raise UsageError("the start has passed", where="--start", fix="Leave --start away: the schedule starts at once")
    times = {"startTime": plan.start, "endTime": plan.end}
    return {**body, **{key: _stamp(time) for key, time in times.items() if time}}


def _labels(spec: Spec, order: Order) -> dict[str, str]:
    return {DIGEST: spec.digest, EXPERIMENT: check_label(order.experiment, "--experiment")}


def _name(text: str) -> str:
    if not 1 <= len(text) <= _NAME_LENGTH:
        raise UsageError(f"a name has 1 to {_NAME_LENGTH} characters, this one has {len(text)}", where="name", fix="Choose a shorter one")
    return text


def _check_places(root: str, parameters: Mapping[str, Any]) -> None:
    if not root.startswith("gs://"):
        found = f"'{root}' is none" if root else "none is named"
        fix = "Give --pipeline-root gs://bucket/folder, or `pipeline_root` in the site file"
        raise UsageError(f"Vertex needs a folder at gs:// for what steps hand on; {found}", where="--pipeline-root", fix=fix)
    store = str(parameters.get("store") or "")
    if store and not store.startswith("gs://"):
        fix = "Give gs://bucket/prefix: the run's service account reaches it without a key"
        raise UsageError(f"steps on Vertex can't reach '{store}'", where="--store", fix=fix)


def _cron(plan: Plan) -> str:
    match plan.trigger:
        case Cron():
            return f"TZ={plan.zone} {plan.trigger.for_vertex()}"
        case Interval():
            raise UsageError(
                "Vertex has no intervals", where="--every", fix="Say it as --cron, for example '0 */6 * * *' for every six hours"
            )
        case _:
            raise UsageError(f"'{plan.trigger.text}' is no cron expression of five fields", where="--cron", fix="Write five fields")


def _stamp(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _uncached(spec: Json) -> Json:
    """The spec with the cache off for every task: this project's steps have their own (docs/decisions/0001-step-cache.md)."""
    components = {name: _without_cache(each) for name, each in spec.get("components", {}).items()}
    return {**spec, "root": _without_cache(spec["root"]), **({"components": components} if components else {})}


def _without_cache(component: Json) -> Json:
    if "dag" not in component:
        return component
    dag = component["dag"]
    tasks = {name: {**task, "cachingOptions": {"enableCache": False}} for name, task in dag.get("tasks", {}).items()}
    return {**component, "dag": {**dag, "tasks": tasks}}


def _accelerator(executor: Json) -> str:
    found = executor.get("container", {}).get("resources", {}).get("accelerator", {})
    return str(found.get("resourceType") or found.get("type") or "")


def step_names(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(name that Vertex may report, step) for every task that runs a container; groups and conditions are left out.

    A task is reported by its key in the spec or by its display name; which of them is not documented.
    """
    components = spec.get("components", {})
    dags = [spec.get("root", {}), *components.values()]
    for key, task in (each for dag in dags for each in dag.get("dag", {}).get("tasks", {}).items()):
        if "executorLabel" in components.get(task.get("componentRef", {}).get("name"), {}):
            step = key.replace("-", "_")
            yield from ((key, step), (task.get("taskInfo", {}).get("name", key), step))
