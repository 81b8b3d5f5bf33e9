"""The cluster: it answers, its version, who asks, and the namespaces and objects that runs and rollouts need."""

import re
from collections.abc import Iterator

from pipelines.doctor.finding import Finding, failed, ok, skipped, warning
from pipelines.doctor.visit import Visit

OLDEST = (1, 30)
"""Kubernetes with the native `sleep` of preStop, and spread constraints per revision (manifests/README.md)."""


def check_cluster(visit: Visit) -> list[Finding]:
    """The API server answers this identity, and is new enough."""
    answer = visit.kube.ask("GET", "/version")
    version = str(answer.body.get("gitVersion", ""))
    found = f"Kubernetes {version or '?'} at {visit.kube.address}, as {_identity(visit)}"
    numbers = re.match(r"v(\d+)\.(\d+)", version)
    if answer.status >= 400 or numbers is None:
        fix = "Check the server's address in the kubeconfig: kubectl cluster-info"
        return [failed("cluster", f"{visit.kube.address} does not say its version: {answer.message}", fix)]
    if (int(numbers[1]), int(numbers[2])) < OLDEST:
        return [failed("cluster", f"{found}; needs {OLDEST[0]}.{OLDEST[1]} or newer", "Upgrade the cluster")]
    return [ok("cluster", found)]


def check_namespaces(visit: Visit) -> list[Finding]:
    """The namespaces of the served model and of runs are there."""
    return [_namespace(visit, name) for name in visit.namespaces]


def check_objects(visit: Visit) -> list[Finding]:
    """The manifests are applied: what a rollout copies, points at and reads is in the namespace."""
    base, name = f"namespaces/{visit.serving_namespace}", visit.name
    paths = {
        f"Deployment {name}": f"/apis/apps/v1/{base}/deployments/{name}",
        f"Service {name}": f"/api/v1/{base}/services/{name}",
        f"Service {name}-preview": f"/api/v1/{base}/services/{name}-preview",
        f"ConfigMap {name}-store": f"/api/v1/{base}/configmaps/{name}-store",
    }
    found = {what: visit.kube.find(path) for what, path in paths.items()}
    missing = [what for what, body in found.items() if body is None]
    if missing:
        fix = f"kubectl apply -k manifests/overlays/OVERLAY   (local, gke or onprem, with namespace: {visit.serving_namespace})"
        return [warning("manifests", f"not in {visit.serving_namespace}: {', '.join(missing)}; a rollout needs them", fix)]
    applied = ok("manifests", f"applied in {visit.serving_namespace}")
    return [applied, *_same_store(visit, str(((found[f"ConfigMap {name}-store"] or {}).get("data") or {}).get("uri", "")))]


def _same_store(visit: Visit, uri: str) -> Iterator[Finding]:
    """Server pods fetch releases from the store that the ConfigMap names; runs write to the one that was given."""
    if not uri:
        what = f"ConfigMap {visit.name}-store names no store: server pods find no release"
        yield failed("manifests", what, "Set uri= in the overlay, and apply it")
    elif "://" in visit.store and uri.rstrip("/") != visit.store.rstrip("/"):
        yield warning("manifests", f"server pods read {uri}, and --store is {visit.store}", "Give both the same address")


def _namespace(visit: Visit, name: str) -> Finding:
    answer = visit.kube.ask("GET", f"/api/v1/namespaces/{name}")
    if answer.status == 404:
        fix = f"kubectl create namespace {name}   (or apply an overlay with the component psa)"
        return failed("namespace", f"there is no namespace {name}", fix)
    if answer.status == 403:
        return skipped("namespace", f"this identity may not look at namespaces, {name} among them")
    phase = str(answer.body.get("status", {}).get("phase", ""))
    if phase == "Terminating":
        return failed("namespace", f"{name} is being deleted", f"Wait for it, or find what holds it: kubectl get namespace {name} -o yaml")
    return ok("namespace", f"{name} is {phase or 'there'}")


def _identity(visit: Visit) -> str:
    """Who the API server takes this identity for (SelfSubjectReview, Kubernetes 1.28)."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = visit.kube.ask("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body)
    # A refusal has a `status` too: the word Failure.
    told = answer.body.get("status", {}).get("userInfo", {}).get("username", "") if answer.status < 400 else ""
    return str(told) or "an identity that it does not name"
