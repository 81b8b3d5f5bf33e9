"""What Kubernetes is told: an Indexed Job, one pod a worker, and a headless Service by which they find each other.

Needs Kubernetes 1.29 (backoffLimitPerIndex): https://kubernetes.io/docs/concepts/workloads/controllers/job/
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.core.errors import UsageError
from components.training.distributed.settings import WorkersSettings
from components.training.distributed.worker import WORKERS
from serving.rollout.cluster.api import Json

CONTAINER = "worker"
ORDER = "dual.dev/order"
"""Annotation: the order that a Job works on."""
_USER = 10001
_GRACE = 5
_KEPT = 3600
"""Seconds after which Kubernetes removes a finished Job whose step could not."""
_REFUSED = [1, 2, 3, 4, 5]
"""Exit codes of our own errors: what was refused once is refused again."""
_OF_KFP = ("KFP_", "ARGO_", "METADATA_")


@dataclass(frozen=True)
class Place:
    """What a worker's pod has from where its step runs, and what it is to do."""

    name: str
    store: str
    order: str
    step: Json | None
    """The step's own pod; None: the step runs outside of the cluster."""
    owner: Json | None
    """Reference to that pod: when it goes, Kubernetes removes the workers."""


def addresses(name: str, workers: WorkersSettings) -> list[str]:
    """Where the workers listen: the names that an Indexed Job gives its pods, below the Service's."""
    return [f"{name}-{index}.{name}:{workers.kubernetes.port}" for index in range(workers.count)]


def labels(name: str) -> dict[str, str]:
    """What the pods of a Job carry."""
    return {"app.kubernetes.io/name": name, "app.kubernetes.io/component": "training-worker"}


def service_body(name: str, port: int, owner: Json) -> Json:
    """The headless Service; pods are found before they are ready, since they are ready when they found each other."""
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": labels(name), "ports": [{"name": "grpc", "port": port}]}
    metadata = {"name": name, "labels": labels(name), "ownerReferences": [owner]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def job_body(place: Place, workers: WorkersSettings) -> Json:
    """The Job. `UsageError` if there is no image: outside of the cluster it must be named."""
    spec = {
        "completionMode": "Indexed",
        "completions": workers.count,
        "parallelism": workers.count,
        "backoffLimitPerIndex": workers.restarts,
        "maxFailedIndexes": 0,
        "podFailurePolicy": {"rules": _rules()},
        "ttlSecondsAfterFinished": _KEPT,
        "template": {"metadata": {"labels": labels(place.name)}, "spec": _pod(place, workers)},
    }
    owners = {"ownerReferences": [place.owner]} if place.owner else {}
    metadata = {"name": place.name, "labels": labels(place.name), "annotations": {ORDER: place.order}, **owners}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def _rules() -> list[Json]:
    refused = {"containerName": CONTAINER, "operator": "In", "values": _REFUSED}
    # A pod that was preempted, drained or evicted did nothing wrong: it is made again, as often as it takes.
    disrupted = [{"type": "DisruptionTarget", "status": "True"}]
    return [{"action": "FailJob", "onExitCodes": refused}, {"action": "Ignore", "onPodConditions": disrupted}]


def _pod(place: Place, workers: WorkersSettings) -> Json:
    chosen, step = workers.kubernetes, (place.step or {}).get("spec", {})
    main = main_container(step)
    selector = chosen.node_selector or step.get("nodeSelector", {})
    tolerations = chosen.tolerations or step.get("tolerations", [])
    account = chosen.service_account or step.get("serviceAccountName", "")
    volumes, mounts = _volumes(step, main)
    return {
        "restartPolicy": "Never",
        "subdomain": place.name,
        "terminationGracePeriodSeconds": _GRACE,
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": _user(main), "seccompProfile": {"type": "RuntimeDefault"}},
        **({"serviceAccountName": account} if account else {}),
        **({"imagePullSecrets": step["imagePullSecrets"]} if step.get("imagePullSecrets") else {}),
        **({"nodeSelector": selector} if selector else {}),
        **({"tolerations": tolerations} if tolerations else {}),
        "containers": [_container(place, workers, main, mounts)],
        "volumes": volumes,
    }


def _container(place: Place, workers: WorkersSettings, main: Json, mounts: list[Json]) -> Json:
    chosen = workers.kubernetes
    image = chosen.image or main.get("image", "")
    if not image:
        fix = "Give the image dual-trainer as the cluster can pull it; a step inside of the cluster takes its own"
        raise UsageError("there is no image for the workers", where="settings key workers.kubernetes.image", fix=fix)
    found = {WORKERS: ",".join(addresses(place.name, workers)), **chosen.env}
    env = [{"name": key, "value": value} for key, value in found.items()]
    inherited = [each for each in main.get("env", []) if each["name"] not in found and not each["name"].startswith(_OF_KFP)]
    return {
        "name": CONTAINER,
        "image": image,
        "command": ["python", "-m", "components.training.distributed.worker", place.store, place.order],
        "env": [*inherited, *env],
        **({"envFrom": main["envFrom"]} if main.get("envFrom") else {}),
        "resources": chosen.resources or main.get("resources", {}),
        "ports": [{"name": "grpc", "containerPort": chosen.port}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }


def main_container(spec: Mapping[str, Any]) -> Json:
    """The container of a step's pod that runs the step (Argo's other one waits); empty if there is none."""
    containers = spec.get("containers", [])
    return next((each for each in containers if each["name"] == "main"), containers[0] if containers else {})


def _user(main: Json) -> int:
    return int(main.get("securityContext", {}).get("runAsUser") or _USER)


def _volumes(step: Mapping[str, Any], main: Json) -> tuple[list[Json], list[Json]]:
    """What the step has of claims, memory and secrets, and a /tmp of the worker's own."""
    shared = [each for each in step.get("volumes", []) if _is_shared(each)]
    names = {each["name"] for each in shared}
    mounts = [each for each in main.get("volumeMounts", []) if each["name"] in names]
    if any(each["mountPath"] == "/tmp" for each in mounts):  # noqa: S108 - a path in the pod
        return shared, mounts
    scratch = {"name": "worker-scratch", "emptyDir": {}}
    return [*shared, scratch], [*mounts, {"name": scratch["name"], "mountPath": "/tmp"}]  # noqa: S108


def _is_shared(volume: Json) -> bool:
    return "persistentVolumeClaim" in volume or "secret" in volume or volume.get("emptyDir", {}).get("medium") == "Memory"
