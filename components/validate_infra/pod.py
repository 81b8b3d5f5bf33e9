"""The pod of a check: what the applied template makes of releases, made of a candidate, and out of the way of all that serves."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.core.errors import UsageError
from serving.rollout.cluster.api import Api, Json
from serving.rollout.cluster.names import (
    CANDIDATE_VARIABLE,
    COMPONENT,
    DIGEST_VARIABLE,
    INFRA_CHECK,
    MANAGED_BY,
    NAME,
    RELEASE_VARIABLE,
    REVISION,
    STORE_VARIABLE,
    Names,
)

RUN = "dual.dev/run"
"""Annotation: the run that the pod was made for."""
WATCH = "peak"
"""The container beside the server that tells how much memory it takes."""
_GRACE = 1
_SMALL = {"cpu": "20m", "memory": "32Mi", "ephemeral-storage": "16Mi"}
_LARGE = {"cpu": "200m", "memory": "128Mi", "ephemeral-storage": "64Mi"}
_REST, _GRPC = 8501, 8500


@dataclass(frozen=True)
class Check:
    """What one check brings to the template."""

    candidate: str
    """Digest of its candidate.json."""
    run_id: str
    seconds: float
    """After which Kubernetes ends the pod, whatever becomes of the step."""
    store: str = ""
    """Where the pod finds the candidate; empty: where the template's pods find releases."""
    owner: Json | None = None
    """Reference to the pod of the step: when that one goes, Kubernetes removes this one."""


def pod_name(names: Names, candidate: str) -> str:
    """The pod of one candidate; every attempt has a candidate, hence a pod, of its own."""
    return f"{names.name}-{INFRA_CHECK}-{candidate[:12]}"


def check_labels(names: Names) -> dict[str, str]:
    """What every check's pod carries: not what Services, disruption budgets and rollouts select."""
    return {NAME: names.name, COMPONENT: INFRA_CHECK}


def make_pod(template: Json, names: Names, check: Check) -> Json:
    """The pod; image, flags, resources, probes, volumes, identity and security are the template's.

    Raises `UsageError` if the template has nowhere to put the candidate.
    """
    made = copy.deepcopy(template["spec"]["template"])
    metadata, spec = made.get("metadata") or {}, made["spec"]
    # Nothing has to drain, and a preStop hook may not last longer than the grace period.
    for container in spec["containers"]:
        container.get("lifecycle", {}).pop("preStop", None)
    spec["containers"].append(_watcher(_order(spec, names, check)))
    # It is no part of the set that is to be spread.
    spec.pop("topologySpreadConstraints", None)
    spec |= {"restartPolicy": "Never", "activeDeadlineSeconds": math.ceil(check.seconds), "terminationGracePeriodSeconds": _GRACE}
    spec["shareProcessNamespace"] = True
    labels = {key: value for key, value in metadata.get("labels", {}).items() if key != REVISION}
    named = {
        "name": pod_name(names, check.candidate),
        "namespace": names.namespace,
        "labels": {**labels, **check_labels(names), MANAGED_BY: "dual-validate-infra"},
        "annotations": {**metadata.get("annotations", {}), RUN: check.run_id},
        **({"ownerReferences": [check.owner]} if check.owner else {}),
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": named, "spec": spec}


def _order(spec: Json, names: Names, check: Check) -> Json:
    """Let the container that fetches releases fetch the candidate; that container."""
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        variables = container.get("env", [])
        if any(variable["name"] == RELEASE_VARIABLE for variable in variables):
            values = {CANDIDATE_VARIABLE: check.candidate} | ({STORE_VARIABLE: check.store} if check.store else {})
            replaced = {RELEASE_VARIABLE, DIGEST_VARIABLE, *values}
            kept = [variable for variable in variables if variable["name"] not in replaced]
            container["env"] = [*kept, *({"name": key, "value": value} for key, value in values.items())]
            return container
    fix = f"Give the container that fetches the model an environment variable {RELEASE_VARIABLE}"
    where = f"Deployment {names.namespace}/{names.template}"
    raise UsageError(f"no container has the variable {RELEASE_VARIABLE}", where=where, fix=fix)


def _watcher(fetcher: Json) -> Json:
    # The fetcher's image is on the node already, and has Python and this package.
    kept = {key: fetcher[key] for key in ("image", "imagePullPolicy", "securityContext") if key in fetcher}
    return {"name": WATCH, **kept, "command": ["python", "-m", "serving.peak"], "resources": {"requests": _SMALL, "limits": _LARGE}}


def server_of(spec: Json) -> Json:
    """The container that serves: the one with a port named `rest`, or else the first."""
    found = (each for each in spec["containers"] if any(port.get("name") == "rest" for port in each.get("ports", [])))
    return next(found, spec["containers"][0])


def ports_of(spec: Json) -> tuple[int, int]:
    """The server's ports for REST and gRPC."""
    ports = {port.get("name"): port["containerPort"] for port in server_of(spec).get("ports", [])}
    return ports.get("rest", _REST), ports.get("grpc", _GRPC)


def owner_reference(api: Api, environment: Mapping[str, str]) -> Json | None:
    """A reference to the pod that this process runs in; None outside of a cluster, or if the pod is of another namespace.

    Kubernetes would take an owner of another namespace for one that is gone, and remove what it owns.
    """
    name = environment.get("KFP_POD_NAME") or environment.get("HOSTNAME", "")
    if not name or "KUBERNETES_SERVICE_HOST" not in environment:
        return None
    found: Any = api.find_allowed("Pod", name)
    expected = environment.get("KFP_POD_UID", "")
    if found is None or (expected and found["metadata"]["uid"] != expected):
        return None
    return {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": found["metadata"]["uid"], "blockOwnerDeletion": False}
