"""Pieces of clusters: sites, nodes with GPUs, what the manifests make."""

import json
from typing import Any

from pipelines.targets.site import Site
from tests.cluster.conftest import MANIFESTS
from tests.doctor.conftest import Place

Json = dict[str, Any]


def site(**kubeflow: Any) -> Site:
    return Site.model_validate({"kubeflow": kubeflow})


def node(name: str, gpus: int = 0, labels: dict[str, str] | None = None, taints: list[Json] | None = None) -> tuple[Json, Json]:
    """A node, and the status that its kubelet would write."""
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels or {}}, "spec": {"taints": taints or []}}
    amounts = {"cpu": "8", "memory": "32Gi", "pods": "110", **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    return body, {"allocatable": amounts, "capacity": amounts, "conditions": [ready]}


def add_node(place: Place, *arguments: Any, **options: Any) -> None:
    body, state = node(*arguments, **options)
    place.cluster.apply(body)
    name = body["metadata"]["name"]
    place.status("node", name, state, namespaced=False)
    # Every new node gets a taint that the node controller takes away once it is ready; there is none here.
    place.cluster.kubectl("patch", "node", name, "--type=merge", "-p", json.dumps({"spec": body["spec"]}))


_built: dict[str, str] = {}


def apply_overlay(place: Place, name: str) -> None:
    """What a combination of the manifests makes, in the test's namespace."""
    if name not in _built:
        _built[name] = json.dumps([body for body in place.cluster.build(MANIFESTS / "tests" / name) if body["kind"] != "Namespace"])
    bodies = json.loads(_built[name])
    for body in bodies:
        body["metadata"]["namespace"] = place.namespace
        for subject in body.get("subjects", []):
            subject["namespace"] = place.namespace
    place.cluster.apply(*bodies)
