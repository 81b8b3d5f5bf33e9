"""Why a run stands still: what its pods say, which Kubeflow does not pass on.

A bad image, a pod that fits on no node, a claim whose StorageClass does not exist: the run stays RUNNING without an error.
"""

import re
from collections.abc import Iterator

from pipelines.submission.kubeflow.cluster import RUN_LABEL, Cluster, ClusterError, Json
from pipelines.submission.kubeflow.tasks import step_name

_NODE_NAME = "workflows.argoproj.io/node-name"
_NORMAL = frozenset({"ContainerCreating", "PodInitializing", "Completed", ""})
_FIXES = {
    "ErrImagePull": "check the image's name and the pull secret",
    "ImagePullBackOff": "check the image's name and the pull secret",
    "InvalidImageName": "the image's name is no name",
    "ErrImageNeverPull": "the image is not on the node and may not be pulled",
    "CreateContainerConfigError": "a Secret or ConfigMap that the pod names is missing, or the image runs as root",
    "Unschedulable": "no node has room, or none has what the pod asks for",
    "OOMKilled": "the step needs more memory than its limit",
    "Evicted": "the node ran out of memory or disk",
}


def pod_troubles(cluster: Cluster, namespace: str, run_id: str) -> list[tuple[str, str]]:
    """(step, reason) for each pod of the run that can't go on, or was ended from outside."""
    return [
        (_step(pod), reason) for pod in cluster.pods(namespace, f"{RUN_LABEL}={run_id}") for reason in _reasons(cluster, namespace, pod)
    ]


def workflow_troubles(cluster: Cluster, namespace: str, run_id: str) -> list[tuple[str, str]]:
    """(step, reason) for each node that waits with a message: pods that the API server did not even accept are only seen here."""
    found = []
    for workflow in cluster.workflows(namespace, f"{RUN_LABEL}={run_id}"):
        for node in (workflow.get("status", {}).get("nodes") or {}).values():
            if node.get("phase") in ("Pending", "Error") and node.get("message") and node.get("type") == "Pod":
                found.append((step_of(node.get("name", "")), node["message"]))
    return found


def workflow_errors(workflow: Json) -> dict[str, str]:
    """Step → why it failed, as Argo says it; Kubeflow's own record of a task has no such message."""
    nodes = (workflow.get("status") or {}).get("nodes") or {}
    failed = [node for node in nodes.values() if node.get("phase") in ("Failed", "Error") and node.get("message")]
    # A group repeats what its children say; a pod says it first.
    ordered = sorted(failed, key=lambda node: node.get("type") == "Pod")
    return {step_of(node.get("name", "")): node["message"] for node in ordered}


def step_of(node_name: str) -> str:
    """The step of an Argo node: `dual-x7k2p.root.exit-handler-1.train-cloud.executor` → `train_cloud`."""
    parts = [re.sub(r"\(\d+\)$", "", part) for part in node_name.split(".")]
    parts = [part for part in parts if part != "executor"]
    return step_name(parts[-1].removesuffix("-driver")) if parts else ""


def _step(pod: Json) -> str:
    metadata = pod["metadata"]
    return step_of((metadata.get("annotations") or {}).get(_NODE_NAME, metadata["name"]))


def _reasons(cluster: Cluster, namespace: str, pod: Json) -> Iterator[str]:
    status = pod.get("status") or {}
    if status.get("phase") == "Failed" and status.get("reason"):
        yield _told(status["reason"], status.get("message", ""))
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False" and status.get("phase") == "Pending":
            yield _told(condition.get("reason", ""), _with_claims(cluster, namespace, pod, condition.get("message", "")))
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        yield from _container(container)
    if status.get("phase") == "Pending" and not status.get("containerStatuses"):
        yield from _mounts(cluster, namespace, pod)


def _container(container: Json) -> Iterator[str]:
    state = container.get("state") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
    if waiting.get("reason", "") not in _NORMAL:
        yield _told(waiting["reason"], waiting.get("message", ""))
    elif ended.get("reason") == "OOMKilled":
        yield _told("OOMKilled", f"container {container['name']}")


def _mounts(cluster: Cluster, namespace: str, pod: Json) -> Iterator[str]:
    """A volume that can't be mounted is only said in an event, and the newest counts."""
    events = [
        event
        for event in cluster.events(namespace, pod["metadata"]["name"])
        if event.get("reason") in ("FailedMount", "FailedAttachVolume")
    ]
    if events:
        yield _told(events[-1]["reason"], events[-1].get("message", ""))


def _with_claims(cluster: Cluster, namespace: str, pod: Json, message: str) -> str:
    """The scheduler's message, and for a claim that is not bound what its events say."""
    names = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["spec"].get("volumes", []) if "persistentVolumeClaim" in volume]
    said = [text for name in names if (text := _unbound(cluster, namespace, name))]
    return "; ".join([message, *said])


def _unbound(cluster: Cluster, namespace: str, name: str) -> str:
    try:
        claim = cluster.claim(namespace, name)
    except ClusterError:
        return f"the claim {name} does not exist"
    if claim.get("status", {}).get("phase") == "Bound":
        return ""
    events = cluster.events(namespace, name)
    wanted = claim["spec"].get("storageClassName") or "the default StorageClass"
    return f"the claim {name} waits for {wanted}: {events[-1].get('message', '') if events else 'nothing provides it'}"


def _told(reason: str, message: str) -> str:
    fix = f" ({_FIXES[reason]})" if reason in _FIXES else ""
    line = " ".join(message.split())
    return f"{reason}: {line[:300]}{fix}" if line else f"{reason}{fix}"
