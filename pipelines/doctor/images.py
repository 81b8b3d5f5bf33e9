"""Images: the registry has those that pods are started from, nodes could pull them lately, and (if asked) can pull them now."""

import time
from contextlib import suppress
from typing import Any
from uuid import uuid4

from components.core.download import Patience
from components.core.errors import DualError
from pipelines.doctor.finding import Finding, failed, ok, skipped, warning
from pipelines.doctor.kube import Json
from pipelines.doctor.visit import Visit
from pipelines.mirror.manifest import PassingError
from pipelines.mirror.reference import Reference, parse_reference
from pipelines.mirror.registry import RegistryImages
from pipelines.mirror.session import Session

_COULD_NOT = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
_LOOK_EVERY = 0.25
_NODES = "nodes may have another way, or another login: dual doctor --try"
_TRIED = "image pulls (tried)"


def check_images(visit: Visit) -> list[Finding]:
    """Every image is known to its registry, asked from here with this machine's logins; the namespace's pull Secrets are not read."""
    images = images_of(visit)
    if not images:
        return [skipped("images", "no image was named", "dual doctor --images build.json   (or apply the manifests)")]
    return [_known(image, visit.seconds / 2) for image in images]


def check_pulls(visit: Visit) -> list[Finding]:
    """No pod of the namespaces failed lately because its image could not be pulled."""
    spaces = visit.namespaces
    events = [event for space in spaces for event in visit.kube.items(f"/api/v1/namespaces/{space}/events", fieldSelector="reason=Failed")]
    told = list(dict.fromkeys(str(event.get("message", "")) for event in events if "pull image" in str(event.get("message", ""))))
    if not told:
        return [ok("image pulls", f"no event of a failed pull in {', '.join(spaces)}")]
    more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
    return [warning("image pulls", f"{told[0][:300]}{more}", "kubectl get events -A --field-selector reason=Failed")]


def check_pulls_by_trying(visit: Visit) -> list[Finding]:
    """A pod whose containers are the images; it is deleted as soon as each was pulled, or could not be."""
    images = images_of(visit)
    if not visit.try_images or not images:
        return []
    space, name = visit.serving_namespace, f"dual-doctor-{uuid4().hex[:8]}"
    path = f"/api/v1/namespaces/{space}/pods"
    answer = visit.kube.ask("POST", path, _pod(visit, name, images))
    if answer.status >= 400:
        return [failed(_TRIED, f"the pod was refused in {space}: {answer.message}", f"kubectl auth can-i create pods -n {space}")]
    try:
        return _watch(visit, f"{path}/{name}", images)
    finally:
        visit.kube.ask("DELETE", f"{path}/{name}", {"gracePeriodSeconds": 0})


def images_of(visit: Visit) -> list[str]:
    """The images that were named, and those of the template Deployment where there is one."""
    pod = _template(visit) if visit.target == "kubeflow" else {}
    applied = [each["image"] for each in [*pod.get("initContainers", []), *pod.get("containers", [])]]
    return list(dict.fromkeys([*visit.images, *applied]))


def _template(visit: Visit) -> Json:
    """The pod of the template Deployment; empty where it can't be read: images may be named without a cluster."""
    with suppress(DualError):
        found = visit.kube.find(f"/apis/apps/v1/namespaces/{visit.serving_namespace}/deployments/{visit.name}")
        return (found or {}).get("spec", {}).get("template", {}).get("spec", {})
    return {}


def _known(image: str, timeout: float) -> Finding:
    if "/" not in image:
        fix = "Push it, and name it with its registry: images: in the overlay, or skaffold build --default-repo"
        return warning("images", f"{image} has no registry: only nodes that have it already can start it", fix)
    try:
        reference = parse_reference(image)
        if _has(reference, timeout):
            return ok("images", f"{image} is there")
        return warning("images", f"there is no {reference} ({_NODES})", "skaffold build --file-output build.json   (or correct the name)")
    except PassingError as error:
        # A registry inside the cluster, or a mirror on the nodes, can't be asked from everywhere.
        return warning("images", f"{image}: {error}, from here ({_NODES})", f"docker manifest inspect {image}")
    except DualError as error:
        return warning("images", f"{image}: {error.where}: {error.what} ({_NODES})", error.fix)


def _has(reference: Reference, timeout: float) -> bool:
    plain = reference.registry.startswith(("localhost", "127.0.0.1"))
    session = Session(reference.registry, plain=plain, patience=Patience(attempts=1, timeout=timeout))
    return RegistryImages(session, reference.repository).has_manifest(reference.version)


def _pod(visit: Visit, name: str, images: list[str]) -> Json:
    """A pod that Pod Security's strictest level lets in, and that ends by itself if nobody deletes it."""
    secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
    small = {"cpu": "10m", "memory": "16Mi"}
    containers: list[Any] = [
        # A command that no image has: what counts is that the image was there to look for it in.
        {"name": _container(number), "image": image, "command": ["/dual-doctor"], "resources": {"requests": small, "limits": small}}
        for number, image in enumerate(images)
    ]
    secrets = _template(visit).get("imagePullSecrets") or [{"name": each} for each in visit.site.kubeflow.image_pull_secrets]
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "activeDeadlineSeconds": int(visit.seconds) + 30,
        "terminationGracePeriodSeconds": 0,
        "imagePullSecrets": secrets,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{**container, "securityContext": secure} for container in containers],
    }
    labels = {"app.kubernetes.io/name": visit.name, "app.kubernetes.io/component": "doctor"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def _watch(visit: Visit, path: str, images: list[str]) -> list[Finding]:
    """Look until each image was pulled or refused; leaves time to delete the pod."""
    deadline = time.monotonic() + visit.seconds * 0.8
    states: dict[str, str] = {}
    while time.monotonic() < deadline:
        pod = visit.kube.find(path) or {}
        states = {image: _state(pod, _container(number)) for number, image in enumerate(images)}
        if all(states.values()):
            break
        time.sleep(_LOOK_EVERY)
    return [_tried(image, states.get(image, ""), visit) for image in images]


def _container(number: int) -> str:
    return f"image-{number}"


def _state(pod: Json, container: str) -> str:
    """`pulled`, why it could not be, or empty while that is not known."""
    statuses = pod.get("status", {}).get("containerStatuses", [])
    status = next((each for each in statuses if each["name"] == container), {})
    waiting = status.get("state", {}).get("waiting", {})
    if waiting.get("reason") in _COULD_NOT:
        return f"{waiting['reason']}: {waiting.get('message', '')}"
    if status.get("imageID") or "terminated" in status.get("state", {}) or "running" in status.get("state", {}):
        return "pulled"
    conditions = pod.get("status", {}).get("conditions", [])
    stuck = next((each for each in conditions if each["type"] == "PodScheduled" and each["status"] == "False"), None)
    return f"no node takes the pod: {stuck.get('message', '')}" if stuck else ""


def _tried(image: str, state: str, visit: Visit) -> Finding:
    if state == "pulled":
        return ok(_TRIED, f"{image} was pulled by a node")
    if not state:
        fix = f"Give more time: dual doctor --try --seconds {3 * visit.seconds:g}"
        return warning(_TRIED, f"{image}: no node had pulled it after {visit.seconds * 0.8:.0f} s", fix)
    fix = f"Correct the image's name, or the pull Secret: kubectl create secret docker-registry … -n {visit.serving_namespace}"
    return failed(_TRIED, f"{image}: {state[:300]}", fix)
