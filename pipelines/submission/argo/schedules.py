"""CronWorkflows in the cluster, through the Kubernetes API: no argo-server is needed, and Kubeflow installs none."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from components.core.errors import ConflictError, MissingError, UsageError
from pipelines.submission.argo.cron_workflow import LABELS, ArgoSchedule, Json, cron_workflow
from pipelines.submission.kubeflow.cluster import Cluster

_PLURAL = "cronworkflows"


@dataclass(frozen=True, kw_only=True)
class Scheduled:
    """A CronWorkflow as it stands."""

    name: str
    namespace: str
    cron: str
    zone: str
    enabled: bool
    image: str
    arguments: tuple[str, ...]
    last: datetime | None = None
    """When it last started a Workflow."""
    active: tuple[str, ...] = ()
    """Workflows that run now."""


def keep(cluster: Cluster, schedule: ArgoSchedule, *, replace: bool) -> tuple[str, Scheduled]:
    """Make sure of the CronWorkflow: (created, unchanged or replaced, as it is).

    Another content under the name is a `ConflictError`, unless `replace`: then one write puts the new content in its place. Paused
    stays paused.
    """
    wanted = cron_workflow(schedule)
    found = cluster.custom_find(schedule.namespace, _PLURAL, schedule.name)
    if found is None:
        return "created", read(cluster.custom_create(schedule.namespace, _PLURAL, wanted))
    if differences := _differ(found["spec"], wanted["spec"]):
        if not replace:
            what = f"a CronWorkflow '{schedule.name}' exists and differs in {', '.join(differences)}"
            raise ConflictError(what, where=f"namespace {schedule.namespace}", fix="Add --replace, or choose another name")
        body = {**wanted, "metadata": {**wanted["metadata"], "resourceVersion": found["metadata"]["resourceVersion"]}}
        body["spec"] = {**wanted["spec"], "suspend": found["spec"].get("suspend", False)}
        return "replaced", read(cluster.custom_replace(schedule.namespace, _PLURAL, body))
    return "unchanged", read(found)


def every(cluster: Cluster, namespace: str) -> list[Scheduled]:
    """The CronWorkflows that dual made."""
    selector = ",".join(f"{key}={value}" for key, value in LABELS.items())
    return [read(each) for each in cluster.custom_list(namespace, _PLURAL, selector)]


def find(cluster: Cluster, namespace: str, name: str) -> Scheduled:
    """One of them; `MissingError` if there is none, `UsageError` if somebody else made it."""
    found = cluster.custom_find(namespace, _PLURAL, name)
    if found is None:
        raise MissingError(
            f"there is no CronWorkflow '{name}'", where=f"namespace {namespace}", fix="See: dual schedule list --engine argo"
        )
    if not LABELS.items() <= (found["metadata"].get("labels") or {}).items():
        raise UsageError(f"the CronWorkflow '{name}' was not made by dual", where=f"namespace {namespace}", fix="Use kubectl")
    return read(found)


def suspend(cluster: Cluster, namespace: str, name: str, *, enabled: bool) -> None:
    """Pause or resume."""
    find(cluster, namespace, name)
    cluster.custom_patch(namespace, _PLURAL, name, {"spec": {"suspend": not enabled}})


def delete(cluster: Cluster, namespace: str, name: str) -> None:
    """Remove; Workflows that it started go with it, the runs of Kubeflow that those submitted stay."""
    find(cluster, namespace, name)
    cluster.custom_delete(namespace, _PLURAL, name)


def read(body: Json) -> Scheduled:
    """A CronWorkflow of ours from the API server's object."""
    spec, status = body["spec"], body.get("status") or {}
    container = spec["workflowSpec"]["templates"][0]["container"]
    last = status.get("lastScheduledTime")
    return Scheduled(
        name=body["metadata"]["name"],
        namespace=body["metadata"]["namespace"],
        cron=", ".join(spec.get("schedules") or []),
        zone=spec.get("timezone", "UTC"),
        enabled=not spec.get("suspend", False),
        image=container["image"],
        arguments=tuple(container["args"]),
        last=datetime.fromisoformat(last) if last else None,
        active=tuple(each["name"] for each in status.get("active") or ()),
    )


def _differ(have: Json, want: Json, path: str = "") -> list[str]:
    """Dotted paths of what differs, down to the deepest mapping; whether it is paused does not count."""
    found: list[str] = []
    for key in sorted({*have, *want} - ({"suspend"} if not path else set())):
        here: Any = have.get(key)
        there: Any = want.get(key)
        where = f"{path}.{key}" if path else key
        if isinstance(here, dict) and isinstance(there, dict):
            found += _differ(here, there, where)
        elif here != there:
            found.append(where)
    return found
