"""A revision: a release in the form that the applied template gives it, as a Deployment of its own."""

import copy
from typing import Any

from pydantic import BaseModel, ConfigDict

from components.core.digest import sha256_json
from components.core.errors import UsageError
from serving.rollout.cluster.api import Json
from serving.rollout.cluster.names import (
    DIGEST_VARIABLE,
    EPOCH,
    HOST,
    HOST_VARIABLE,
    MANAGED_BY,
    MANAGER,
    RELEASE,
    RELEASE_VARIABLE,
    REPLICAS,
    REVISION,
    Names,
)

_TEMPLATE = "template"
_DIGITS = 6


class Revision(BaseModel):
    """A release and the Deployment that serves it: one for each release and template, or a host, one for each template."""

    model_config = ConfigDict(frozen=True)

    release: str
    revision: str
    """`<release>-<6 hex of the template's digest>`, or `labels-<6 hex>`: a host, which may hold this release and another one."""
    digest: str = ""
    """SHA-256 of release.json: pods refuse another one."""


def revision_of(release: str, digest: str, template: Json) -> Revision:
    """The revision that this template makes of a release."""
    spec = {key: value for key, value in template["spec"].items() if key != "replicas"}
    begin = HOST if makes_hosts(template) else release
    return Revision(release=release, revision=f"{begin}-{sha256_json(spec)[:_DIGITS]}", digest=digest)


def makes_hosts(template: Json) -> bool:
    """Whether the template's pods follow what the live Service says, instead of serving one release for good (component labels)."""
    return any(variable["name"] == HOST_VARIABLE for container in _containers(template["spec"]) for variable in container.get("env", []))


def is_host(revision: str) -> bool:
    """Whether a revision is a host. Releases have hexadecimal names, so none is taken for one."""
    return revision.startswith(f"{HOST}-")


def render(template: Json, revision: Revision, names: Names, epoch: int) -> Json:
    """The Deployment of a revision, with 0 pods: a stalled process that still creates one does no harm.

    Raises `UsageError` if the template has nowhere to put the release.
    """
    spec = _revised(copy.deepcopy(template["spec"]), revision.revision)
    found = [_set_release(container, revision) for container in _containers(spec)]
    if not any(found):
        fix = f"Give the container that fetches the model an environment variable {RELEASE_VARIABLE}"
        raise UsageError(
            f"no container has the variable {RELEASE_VARIABLE}", where=f"Deployment {names.namespace}/{names.template}", fix=fix
        )
    spec |= {"replicas": 0, "paused": False, "selector": {"matchLabels": names.selector(revision.revision)}}
    labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
    labels |= names.selector(revision.revision)
    metadata = {
        "name": names.deployment(revision.revision),
        "namespace": names.namespace,
        "labels": {**names.selector(revision.revision), MANAGED_BY: MANAGER},
        "annotations": {EPOCH: str(epoch), **({} if is_host(revision.revision) else {RELEASE: revision.release})},
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def autoscaler_for(applied: Json, revision: str, names: Names, epoch: int) -> Json:
    """The revision's own HorizontalPodAutoscaler: the applied one with another target."""
    spec = copy.deepcopy(applied["spec"])
    spec["scaleTargetRef"] = {"apiVersion": "apps/v1", "kind": "Deployment", "name": names.deployment(revision)}
    metadata = {
        "name": names.deployment(revision),
        "namespace": names.namespace,
        "labels": {**names.selector(revision), MANAGED_BY: MANAGER},
        "annotations": {EPOCH: str(epoch)},
    }
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata, "spec": spec}


def replicas_of(template: Json, names: Names) -> int:
    """How many pods the template's annotation asks for; `UsageError` if it is no positive number."""
    text = template["metadata"].get("annotations", {}).get(REPLICAS, "1")
    if not text.isascii() or not text.isdigit() or not int(text):
        where = f"Deployment {names.namespace}/{names.template}, annotation {REPLICAS}"
        raise UsageError(f"'{text}' is no number of pods", where=where, fix="Write a whole number above 0 in quotes")
    return int(text)


def pods_digest(deployment: Json) -> str:
    """SHA-256 of what a Deployment's pods run: images, commands and variables. Fields that the API server fills in are not among them."""
    return sha256_json([_essence(container) for container in _containers(deployment["spec"])])


def _essence(container: Json) -> list[Any]:
    # An empty value is written or left out, as the API server likes.
    variables = [{key: value for key, value in each.items() if value != ""} for each in container.get("env", [])]
    return [*(container.get(part) for part in ("name", "image", "command", "args")), variables]


def _revised(value: Any, revision: str) -> Any:
    """`value` with the revision wherever the template names its own: labels, selectors, spread constraints."""
    if isinstance(value, dict):
        return {k: revision if k == REVISION and v == _TEMPLATE else _revised(v, revision) for k, v in value.items()}
    return [_revised(each, revision) for each in value] if isinstance(value, list) else value


def _containers(spec: Json) -> list[Json]:
    pod = spec["template"]["spec"]
    return [*pod.get("initContainers", []), *pod["containers"]]


def _set_release(container: Json, revision: Revision) -> bool:
    values = {RELEASE_VARIABLE: revision.release, DIGEST_VARIABLE: revision.digest}
    if is_host(revision.revision):
        # Its pods are the same whatever they hold: a release in here would restart them all.
        values = {RELEASE_VARIABLE: "", DIGEST_VARIABLE: "", HOST_VARIABLE: revision.revision}
    for variable in container.get("env", []):
        if variable["name"] in values:
            variable["value"] = values[variable["name"]]
            variable.pop("valueFrom", None)
    return any(variable["name"] == RELEASE_VARIABLE for variable in container.get("env", []))
