"""A run's Workflow as Argo keeps it: nodes with ids, names, templates and messages."""

from typing import Any

Json = dict[str, Any]
NAME = "dual-deploy-x7k2p"


def node(number: int, path: str, phase: str, *, kind: str = "Pod", message: str = "", template: str = "system-container-impl") -> Json:
    """One node; a running one has no end, as Argo sends it."""
    over = phase in ("Succeeded", "Failed", "Error", "Skipped", "Omitted")
    return {
        "id": f"{NAME}-{number}",
        "name": f"{NAME}.{path}" if path else NAME,
        "displayName": path.rpartition(".")[2] or NAME,
        "type": kind,
        "templateName": template,
        "phase": phase,
        "message": message,
        "startedAt": f"2026-11-26T03:00:{number % 60:02}Z",
        "finishedAt": "2026-11-26T03:02:00Z" if over else None,
    }


def workflow(run_id: str, nodes: list[Json] | None = None, **spec: Any) -> Json:
    """The Workflow of a run that trains."""
    found = nodes if nodes is not None else trains()
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": NAME, "namespace": "kubeflow", "labels": {"pipeline/runid": run_id}},
        "spec": {"entrypoint": "entrypoint", "arguments": {}, "templates": [], **spec},
        "status": {
            "phase": "Running",
            "startedAt": "2026-11-26T03:00:00Z",
            "finishedAt": None,
            "nodes": {each["id"]: each for each in found},
        },
    }


def trains() -> list[Json]:
    """Some nodes: ingest is done, train_cloud runs, train_mobile waits for a machine."""
    return [
        node(1, "", "Running", kind="DAG"),
        node(2, "root", "Running", kind="DAG"),
        node(3, "root.ingest-driver", "Succeeded", template="system-container-driver"),
        node(4, "root.ingest", "Succeeded", kind="DAG"),
        node(5, "root.ingest.executor", "Succeeded"),
        node(6, "root.train-cloud", "Running", kind="DAG"),
        node(7, "root.train-cloud.executor", "Running"),
        node(8, "root.train-mobile.executor", "Pending", message="Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
    ]
