"""GPU nodes: which there are, whether driver and device plugin make them allocatable, and whether our pods may go there."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from pipelines.doctor.finding import Finding, failed, ok
from pipelines.doctor.kube import Json
from pipelines.doctor.visit import Visit
from pipelines.quantity import quantity

GPU = "nvidia.com/gpu"
MODEL_LABELS = ("cloud.google.com/gke-accelerator", "nvidia.com/gpu.product")
"""GKE's label, and the one of NVIDIA's GPU feature discovery."""
_SIGNS = (*MODEL_LABELS, "nvidia.com/gpu.present", "feature.node.kubernetes.io/pci-10de.present")
"""Labels by which a node says that it has NVIDIA's hardware; 10de is NVIDIA's PCI vendor id."""
_ADMISSION = {"key": GPU, "operator": "Exists"}
"""The toleration that the admission plugin ExtendedResourceToleration adds to pods that ask for GPUs, on GKE among others."""
_PLUGIN = (
    "Install driver and device plugin: on GKE create the pool with --accelerator=type=…,gpu-driver-version=latest; "
    "elsewhere: helm install gpu-operator nvidia/gpu-operator -n gpu-operator --create-namespace"
)


def check_gpus(visit: Visit) -> list[Finding]:
    """Nodes with NVIDIA's hardware offer it to pods, and those that the site names can be reached by its pods."""
    nodes = list(visit.kube.items("/api/v1/nodes"))
    wanted = visit.site.kubeflow.accelerators
    resource = wanted.type if wanted.count else GPU
    offering = [node for node in nodes if amount(node, resource)]
    return [*_without_plugin(visit, nodes, resource), _pool(visit, offering, resource), *_reachable(visit, offering, resource)]


def amount(node: Json, resource: str) -> int:
    """How many of a resource a node can give to pods."""
    return int(quantity(str(node.get("status", {}).get("allocatable", {}).get(resource, "0"))))


def ready(node: Json) -> bool:
    """Whether the node takes pods at all."""
    conditions = node.get("status", {}).get("conditions", [])
    healthy = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return healthy and not node.get("spec", {}).get("unschedulable", False)


def intolerable(node: Json, tolerations: Iterable[Json]) -> list[str]:
    """Taints of a node that keep pods with these tolerations away."""
    taints = node.get("spec", {}).get("taints", [])
    hard = [taint for taint in taints if taint.get("effect") in ("NoSchedule", "NoExecute")]
    tolerated = list(tolerations)
    return [f"{taint['key']}:{taint['effect']}" for taint in hard if not any(_tolerates(each, taint) for each in tolerated)]


def _tolerates(toleration: Json, taint: Json) -> bool:
    """The rule of https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/ in words of the API."""
    key, effect = toleration.get("key", ""), toleration.get("effect", "")
    if effect and effect != taint["effect"]:
        return False
    exists = toleration.get("operator", "Equal") == "Exists"
    if not key:
        return exists
    return key == taint["key"] and (exists or toleration.get("value", "") == taint.get("value", ""))


def _without_plugin(visit: Visit, nodes: list[Json], resource: str) -> Iterator[Finding]:
    """Hardware that no pod can get."""
    silent = [node for node in nodes if not amount(node, resource) and any(sign in _labels(node) for sign in _SIGNS)]
    if silent:
        names = ", ".join(node["metadata"]["name"] for node in silent[:3])
        what = f"{len(silent)} node(s) have NVIDIA hardware and offer no {resource} ({names}): driver or device plugin is missing"
        yield failed("gpu plugin", f"{what}; {_plugins(visit)}", _PLUGIN)


def _plugins(visit: Visit) -> str:
    """What runs on the nodes that could be the device plugin."""
    found = [each for each in visit.kube.items("/apis/apps/v1/daemonsets") if _is_plugin(each)]
    if not found:
        return "no DaemonSet of the cluster looks like a device plugin"
    return ", ".join(
        f"DaemonSet {each['metadata']['namespace']}/{each['metadata']['name']}: {each.get('status', {}).get('numberReady', 0)} of "
        f"{each.get('status', {}).get('desiredNumberScheduled', 0)} ready"
        for each in found[:3]
    )


def _is_plugin(daemonset: Json) -> bool:
    name = daemonset["metadata"]["name"]
    return "nvidia" in name or "gpu-device-plugin" in name


def _pool(visit: Visit, offering: list[Json], resource: str) -> Finding:
    """How many accelerators there are, of which model."""
    count = visit.site.kubeflow.accelerators.count
    if not offering:
        if not count:
            return ok("gpus", f"no node offers {resource}; training steps run on processors")
        what = f"the site wants {count} x {resource} for training steps, and no node offers any: they would wait for ever"
        return failed("gpus", what, "Add a GPU node pool (it may scale from 0: then ignore this), or set kubeflow.accelerators.count: 0")
    models: Counter[str] = Counter()
    for node in offering:
        models[next((_labels(node)[label] for label in MODEL_LABELS if label in _labels(node)), "model unknown")] += amount(node, resource)
    told = ", ".join(f"{number} x {model}" for model, number in sorted(models.items()))
    away = [node["metadata"]["name"] for node in offering if not ready(node)]
    if len(away) == len(offering):
        return failed("gpus", f"{told}, but none of the nodes is ready: {', '.join(away[:3])}", "kubectl describe node NAME")
    return ok("gpus", f"{told} on {len(offering)} node(s)" + (f", {len(away)} of them not ready" if away else ""))


def _reachable(visit: Visit, offering: list[Json], resource: str) -> Iterator[Finding]:
    """A node that the pods of training steps can be scheduled to, by labels, taints and number."""
    wanted = visit.site.kubeflow.accelerators
    if not offering or not wanted.count:
        return
    pods: list[Any] = [toleration.model_dump() for toleration in wanted.tolerations]
    reasons = {node["metadata"]["name"]: _why_not(node, wanted.node_selector, pods, resource, wanted.count) for node in offering}
    fitting = [name for name, why in reasons.items() if not why]
    if fitting:
        yield ok("gpu pool", f"training steps can go to {len(fitting)} node(s), such as {fitting[0]}")
        return
    name, why = next(iter(reasons.items()))
    yield failed(
        "gpu pool", f"training steps fit no GPU node; {name}: {why}", "Change kubeflow.accelerators in the site's file, and compile again"
    )


def _why_not(node: Json, selector: dict[str, str], tolerations: list[Any], resource: str, count: int) -> str:
    missing = [f"{key}={value}" for key, value in selector.items() if _labels(node).get(key) != value]
    if missing:
        return f"it lacks the label {', '.join(missing)}"
    if taints := intolerable(node, [*tolerations, _ADMISSION]):
        return f"its taint {', '.join(taints)} is not tolerated"
    return "" if amount(node, resource) >= count else f"it offers {amount(node, resource)} of the {count} wanted"


def _labels(node: Json) -> dict[str, str]:
    return node["metadata"].get("labels", {})


def check_server_gpus(visit: Visit) -> list[Finding]:
    """A template that asks for a GPU finds a node whose labels and taints it fits."""
    path = f"/apis/apps/v1/namespaces/{visit.serving_namespace}/deployments/{visit.name}"
    template = visit.kube.find(path)
    pod = (template or {}).get("spec", {}).get("template", {}).get("spec", {})
    count = max((int(quantity(str(_limit(each)))) for each in pod.get("containers", [])), default=0)
    if not count:
        return []
    nodes = [node for node in visit.kube.items("/api/v1/nodes") if amount(node, GPU) >= count]
    if not nodes:
        return [failed("gpu server", f"the template asks for {count} x {GPU}, and no node offers that", _PLUGIN)]
    fitting = [node for node in nodes if not intolerable(node, pod.get("tolerations", []))]
    if not fitting:
        taints = ", ".join(intolerable(nodes[0], pod.get("tolerations", [])))
        what = f"the template does not tolerate the taint {taints} of {nodes[0]['metadata']['name']}"
        return [failed("gpu server", what, "Add the toleration to the component gpu in the overlay, and apply it")]
    return [ok("gpu server", f"{len(fitting)} node(s) offer what the template asks for")]


def _limit(container: Json) -> str:
    return container.get("resources", {}).get("limits", {}).get(GPU, "0")
