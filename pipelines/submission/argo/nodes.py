"""A run's Workflow, node by node, and the logs of its pods: from an argo-server where there is one, else from the Kubernetes API.

An argo-server also has what Kubernetes has forgotten: archived Workflows, and logs of deleted pods where the site archives them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from components.core.errors import MissingError, UsageError
from pipelines.submission.kubeflow.cluster import RUN_LABEL, Cluster, Json
from pipelines.submission.kubeflow.pods import step_of
from pipelines.submission.kubeflow.tasks import step_name


@dataclass(frozen=True, kw_only=True)
class WorkflowNode:
    """One node of a Workflow."""

    name: str
    """Its place in the tree, without the Workflow's own name: `root.train-cloud.executor`."""
    step: str
    kind: str
    """Pod, DAG, Steps …"""
    phase: str
    message: str
    pod: str
    """Its pod's name, or empty."""
    started: datetime | None
    ended: datetime | None


class WorkflowSource(Protocol):
    """Where Workflows and logs come from."""

    name: str

    def workflow(self, run_id: str) -> Json:
        """The Workflow of a run; `MissingError` if there is none (any more)."""
        ...

    def log(self, workflow: str, pod: str, lines: int) -> str:
        """The end of the step's own output in a pod."""
        ...


@dataclass(frozen=True)
class ClusterSource:
    """The Kubernetes API."""

    cluster: Cluster
    namespace: str
    name: str = "the Kubernetes API"

    def workflow(self, run_id: str) -> Json:
        """By the label that Kubeflow gives it."""
        return _one(self.cluster.workflows(self.namespace, f"{RUN_LABEL}={run_id}"), run_id, self.namespace)

    def log(self, workflow: str, pod: str, lines: int) -> str:
        """Of the container `main`, which is the step's."""
        del workflow
        return self.cluster.log(self.namespace, pod, "main", lines)


def nodes_of(workflow: Json) -> list[WorkflowNode]:
    """The nodes in the order in which they started."""
    root = workflow["metadata"]["name"]
    found = [_node(each, workflow) for each in ((workflow.get("status") or {}).get("nodes") or {}).values() if each.get("name") != root]
    return sorted(found, key=lambda node: (node.started is None, node.started.isoformat() if node.started else "", node.name))


def logs(source: WorkflowSource, run_id: str, step: str, lines: int) -> Iterator[tuple[str, str]]:
    """(pod, log) of every pod of the step that ran, drivers left out; `UsageError` names the steps there are if it is none."""
    workflow = source.workflow(run_id)
    pods = [node for node in nodes_of(workflow) if node.kind == "Pod" and node.pod and not _is_driver(node.name)]
    wanted = [node for node in pods if not step or node.step == step_name(step)]
    if not wanted:
        known = ", ".join(dict.fromkeys(node.step for node in pods)) or "none yet"
        raise UsageError(f"no pod of '{step or 'any step'}' has run", where=run_id, fix=f"Steps with pods: {known}")
    for node in wanted:
        yield node.pod, source.log(workflow["metadata"]["name"], node.pod, lines)


def _is_driver(name: str) -> bool:
    return name.rpartition(".")[2].partition("(")[0].endswith("-driver")


def _node(node: Json, workflow: Json) -> WorkflowNode:
    is_pod = node.get("type") == "Pod"
    return WorkflowNode(
        name=node.get("name", "").removeprefix(f"{workflow['metadata']['name']}."),
        step=step_of(node.get("name", "")),
        kind=node.get("type", ""),
        phase=node.get("phase") or "Pending",
        message=node.get("message") or "",
        pod=_pod_name(node, workflow) if is_pod and node.get("phase") not in ("Skipped", "Omitted") else "",
        started=_time(node.get("startedAt")),
        ended=_time(node.get("finishedAt")),
    )


def _pod_name(node: Json, workflow: Json) -> str:
    """`workflow-template-number`, since Argo 3.4 (pod names v2); before, the node's id."""
    annotations = workflow["metadata"].get("annotations") or {}
    if annotations.get("workflows.argoproj.io/pod-name-format") == "v1":
        return node["id"]
    root = workflow["metadata"]["name"]
    template = node.get("templateName") or (node.get("templateRef") or {}).get("template", "")
    prefix = f"{root}-{template}"[: 253 - 1 - 10] if template else root
    return f"{prefix}-{node['id'].rpartition('-')[2]}"


def _time(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _one(found: list[Json], run_id: str, namespace: str) -> Json:
    if not found:
        fix = "Argo deletes Workflows when their time is over; dual runs show still has Kubeflow's record"
        raise MissingError(f"there is no Workflow of the run '{run_id}'", where=f"namespace {namespace}", fix=fix)
    return found[0]


def parse_log_stream(text: str) -> str:
    """The lines of an argo-server's log: one JSON object a line, `{"result": {"content": …}}`; an error in between is raised."""
    lines = []
    for line in filter(None, text.splitlines()):
        piece = json.loads(line)
        if "error" in piece:
            raise UsageError(f"the log ends with an error: {piece['error'].get('message', '')}", where="argo-server", fix="Try again")
        lines.append(piece.get("result", {}).get("content", ""))
    return "".join(f"{each}\n" for each in lines)
