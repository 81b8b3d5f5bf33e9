"""What other projects add to a cluster and components of the manifests use: the Gateway API, Prometheus' kinds, resource metrics."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.doctor.finding import Finding, failed, ok, warning
from pipelines.doctor.visit import Visit


@dataclass(frozen=True)
class Need:
    """A kind of objects that a component uses."""

    component: str
    group: str
    kinds: tuple[str, ...]
    fix: str


NEEDS = (
    Need(
        "gateway",
        "gateway.networking.k8s.io/v1",
        ("httproutes", "gateways"),
        "kubectl apply -f the Gateway API's standard-install.yaml and a controller; on GKE: "
        "gcloud container clusters update NAME --gateway-api=standard",
    ),
    Need(
        "monitoring",
        "monitoring.coreos.com/v1",
        ("servicemonitors", "prometheusrules"),
        "helm install prometheus prometheus-community/kube-prometheus-stack",
    ),
    Need(
        "monitoring-gmp",
        "monitoring.googleapis.com/v1",
        ("podmonitorings", "rules"),
        "gcloud container clusters update NAME --enable-managed-prometheus",
    ),
)


def check_kinds(visit: Visit) -> list[Finding]:
    """Kinds that components of the manifests use are known to the cluster; what is missing matters to those components only."""
    known = {need.group: _kinds(visit, need.group) for need in NEEDS}
    return [_told(need, known[need.group]) for need in NEEDS] + list(_autoscaling(visit))


def _kinds(visit: Visit, group: str) -> set[str]:
    found = visit.kube.find(f"/apis/{group}")
    return {each["name"] for each in found.get("resources", [])} if found else set()


def _told(need: Need, known: set[str]) -> Finding:
    check, missing = f"component {need.component}", [kind for kind in need.kinds if kind not in known]
    if not missing:
        return ok(check, f"{need.group} is known")
    return ok(check, f"not to be used here: {need.group} has no {', '.join(missing)} (to get it: {need.fix})")


def _autoscaling(visit: Visit) -> Iterator[Finding]:
    """An autoscaler without metrics stays at what it has; without an autoscaler nobody needs metrics."""
    path = f"/apis/autoscaling/v2/namespaces/{visit.serving_namespace}/horizontalpodautoscalers/{visit.name}"
    applied = visit.kube.find(path) is not None
    answer = visit.kube.ask("GET", "/apis/metrics.k8s.io/v1beta1/nodes", limit="1")
    if answer.status in (200, 403):
        yield ok("component hpa", "the resource metrics API answers")
        return
    fix = "kubectl apply -f metrics-server's components.yaml; look: kubectl get apiservice v1beta1.metrics.k8s.io"
    what = f"the resource metrics API does not answer ({answer.message})"
    if applied:
        yield failed("component hpa", f"{what}, and HorizontalPodAutoscaler {visit.name} needs it: pods would not be scaled", fix)
    else:
        yield (warning if answer.status == 503 else _unused)("component hpa", what, fix)


def _unused(check: str, what: str, fix: str) -> Finding:
    return ok(check, f"not to be used here: {what} (to get it: {fix})")
