"""Rights: every verb that the manifests' Roles give, asked one by one for whoever will roll out."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pipelines.doctor.finding import Finding, failed, ok, warning
from pipelines.doctor.visit import Visit

_AT_ONCE = 8


@dataclass(frozen=True)
class Rule:
    """One rule of a Role; `names` empty means any object."""

    groups: tuple[str, ...]
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Right:
    """One thing that one may do."""

    verb: str
    resource: str
    group: str
    name: str

    def __str__(self) -> str:
        """As `kubectl auth can-i` writes it."""
        resource = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {resource}" + (f"/{self.name}" if self.name else "")


BASE = (
    Rule(("apps",), ("deployments",), ("get", "list", "watch", "create", "patch", "delete")),
    Rule(("",), ("services",), ("get", "patch"), ("classifier", "classifier-preview")),
    Rule(("",), ("configmaps",), ("get", "list", "watch", "create")),
    Rule(("",), ("configmaps",), ("update", "patch"), ("classifier-rollout",)),
    Rule(("coordination.k8s.io",), ("leases",), ("create",)),
    Rule(("coordination.k8s.io",), ("leases",), ("get", "update"), ("classifier-rollout",)),
    Rule(("",), ("pods",), ("get", "list", "watch")),
    Rule(("",), ("pods/log",), ("get",)),
    Rule(("discovery.k8s.io",), ("endpointslices",), ("list",)),
    Rule(("", "events.k8s.io"), ("events",), ("create", "patch")),
    Rule(("autoscaling",), ("horizontalpodautoscalers",), ("get", "list", "create", "patch", "delete")),
)
"""The Role of manifests/base/rollout.yaml; a test compares them."""
COMPONENTS = {
    "gateway": (Rule(("gateway.networking.k8s.io",), ("httproutes",), ("get", "patch"), ("classifier",)),),
    "infra-check": (Rule(("",), ("pods",), ("create", "delete")), Rule(("",), ("events",), ("list",))),
}
"""What components of the manifests add to it."""


def check_rights(visit: Visit) -> list[Finding]:
    """This identity may roll out; so may the account that the steps run as, on Kubeflow."""
    rules = [*BASE, *_of_components(visit)]
    found = [_own(visit, rules)]
    if visit.target == "kubeflow":
        found.append(_of_steps(visit, rules))
    return found


def expand(rules: Iterable[Rule], model: str = "classifier") -> Iterator[Right]:
    """Every single right of some rules; objects are named after the served `model`."""
    for rule in rules:
        for group in rule.groups:
            for resource in rule.resources:
                for verb in rule.verbs:
                    for name in rule.names or ("",):
                        yield Right(verb, resource, group, name.replace("classifier", model, 1))


def _of_components(visit: Visit) -> Iterator[Rule]:
    """The gateway's rights are needed where there is a route, those of infra-check only where a site serves in this cluster."""
    path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{visit.serving_namespace}/httproutes/{visit.name}"
    if visit.kube.ask("GET", path).status == 200:
        yield from COMPONENTS["gateway"]
    if visit.site.kubeflow.serving_namespace:
        yield from COMPONENTS["infra-check"]


def _own(visit: Visit, rules: list[Rule]) -> Finding:
    where = visit.serving_namespace
    missing, asked = _missing(visit, rules, "selfsubjectaccessreviews", {})
    if not missing:
        return ok("rights", f"this identity may all {asked} things that a rollout does in {where}")
    fix = f"kubectl create rolebinding my-rollouts -n {where} --role={visit.name}-rollout --user=NAME   (NAME: kubectl auth whoami)"
    return failed("rights", f"this identity may not, in {where}: {', '.join(missing)}", fix)


def _of_steps(visit: Visit, rules: list[Rule]) -> Finding:
    """Steps run as pipeline-runner (single-user) or as the profile's default-editor (multi-user)."""
    alone = visit.runs_namespace == visit.system_namespace
    account = f"system:serviceaccount:{visit.runs_namespace}:{'pipeline-runner' if alone else 'default-editor'}"
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{visit.runs_namespace}", "system:authenticated"]
    asking = {"user": account, "groups": groups}
    first = _ask(visit, next(expand(rules, visit.name)), "subjectaccessreviews", asking)
    if first is None:
        fix = f"kubectl auth can-i patch services/{visit.name} --as={account} -n {visit.serving_namespace}   (as an administrator)"
        return warning("rights (steps)", f"this identity may not ask what {account} may", fix)
    missing, asked = _missing(visit, rules, "subjectaccessreviews", asking)
    if not missing:
        return ok("rights (steps)", f"{account} may all {asked} things in {visit.serving_namespace}")
    what = f"{account} may not, in {visit.serving_namespace}: {_some(missing)}; the step roll_out_cloud would fail"
    return _serious(visit)("rights (steps)", what, "Add the components pipeline-runner and infra-check to the overlay, and apply it")


def _serious(visit: Visit) -> Any:
    """Without a serving namespace in the site's file nothing is rolled out by steps, so nothing fails."""
    return failed if visit.site.kubeflow.serving_namespace else warning


def _missing(visit: Visit, rules: list[Rule], kind: str, asking: dict[str, Any]) -> tuple[list[str], int]:
    rights = list(dict.fromkeys(expand(rules, visit.name)))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        allowed = list(pool.map(lambda right: _ask(visit, right, kind, asking), rights))
    return [str(right) for right, may in zip(rights, allowed, strict=True) if not may], len(rights)


def _ask(visit: Visit, right: Right, kind: str, asking: dict[str, Any]) -> bool | None:
    """Whether the right is granted in the serving namespace; None if this identity may not ask."""
    resource, _, part = right.resource.partition("/")
    attributes = {"verb": right.verb, "group": right.group, "resource": resource, "subresource": part, "name": right.name}
    spec = {**asking, "resourceAttributes": {**attributes, "namespace": visit.serving_namespace}}
    kinds = {"selfsubjectaccessreviews": "SelfSubjectAccessReview", "subjectaccessreviews": "SubjectAccessReview"}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": kinds[kind], "spec": spec}
    answer = visit.kube.ask("POST", f"/apis/authorization.k8s.io/v1/{kind}", body)
    return bool(answer.body.get("status", {}).get("allowed")) if answer.status < 400 else None


def _some(missing: list[str]) -> str:
    return ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
