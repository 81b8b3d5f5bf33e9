"""Admission: Pod Security labels, quotas, and whether pods like ours would be let in (a dry run, which makes nothing)."""

from collections.abc import Iterator

from pipelines.doctor.finding import Finding, failed, ok, skipped, warning
from pipelines.doctor.kube import Answer, Json
from pipelines.doctor.visit import Visit
from pipelines.quantity import quantity
from pipelines.step_needs import NEEDS

_LEVEL = "pod-security.kubernetes.io/enforce"
_IMAGE = "dual.dev/doctor"


def check_pod_security(visit: Visit) -> list[Finding]:
    """What the namespaces enforce; pods of the manifests satisfy the strictest level."""
    spaces = visit.namespaces
    return [_level(visit, space) for space in spaces]


def check_quotas(visit: Visit) -> list[Finding]:
    """No quota of the namespaces is used up."""
    spaces = visit.namespaces
    found = [finding for space in spaces for finding in _quotas(visit, space)]
    return found or [ok("quotas", f"none in {', '.join(spaces)}")]


def check_admission(visit: Visit) -> list[Finding]:
    """A server pod like the template's, and the largest pod of a run, would be let in by Pod Security, quotas, limits and policies."""
    found = [_dry_run(visit, "admission (server)", visit.serving_namespace, pod) for pod in _server_pods(visit)]
    if visit.target == "kubeflow":
        found.append(_dry_run(visit, "admission (steps)", visit.runs_namespace, step_pod(visit)))
    return found or [skipped("admission", "no template to try: apply the manifests first")]


def step_pod(visit: Visit) -> Json:
    """A pod as the training steps get it at this site: the largest of a run."""
    needs, site = NEEDS["train_cloud"], visit.site.kubeflow
    own = site.steps.get("train_cloud")
    cpu, memory = (own and own.cpu) or needs.cpu, (own and own.memory) or needs.memory
    limits = {"cpu": (own and own.cpu_limit) or needs.cpu_limit, "memory": (own and own.memory_limit) or needs.memory_limit}
    if site.accelerators.count:
        limits[site.accelerators.type] = str(site.accelerators.count)
    user = {"runAsUser": site.run_as_user, "runAsGroup": site.run_as_group}
    container = {
        "name": "main",
        "image": _IMAGE,
        "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
            **{key: value for key, value in user.items() if value is not None},
        },
    }
    return {"containers": [container], "restartPolicy": "Never"}


def _server_pods(visit: Visit) -> Iterator[Json]:
    template = visit.kube.find(f"/apis/apps/v1/namespaces/{visit.serving_namespace}/deployments/{visit.name}")
    if template is not None:
        yield template["spec"]["template"]["spec"]


def _dry_run(visit: Visit, check: str, space: str, spec: Json) -> Finding:
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "dual-doctor-", "namespace": space}, "spec": spec}
    answer = visit.kube.ask("POST", f"/api/v1/namespaces/{space}/pods", body, dryRun="All")
    if answer.status < 400:
        return _admitted(check, space, answer)
    why = answer.message
    if answer.status == 403 and "cannot create resource" in why:
        return skipped(check, f"this identity may not try pods in {space}", f"kubectl auth can-i create pods -n {space}")
    return failed(check, f"a pod would be refused in {space}: {why}", _way_out(why, space))


def _admitted(check: str, space: str, answer: Answer) -> Finding:
    if said := answer.headers.get("Warning", ""):
        return warning(check, f"admitted in {space}, with a warning: {said}", "Change the overlay or the site's file until it is silent")
    return ok(check, f"admitted in {space}")


def _way_out(why: str, space: str) -> str:
    if "PodSecurity" in why:
        return f"Correct the overlay, or: kubectl label namespace {space} {_LEVEL}=baseline --overwrite"
    if "exceeded quota" in why:
        return f"kubectl describe resourcequota -n {space}; raise it, or lower what is asked for"
    if "serviceaccount" in why or "service account" in why:
        return "Apply the manifests, which make the ServiceAccount"
    if "maximum" in why or "minimum" in why:
        return f"kubectl describe limitrange -n {space}; raise it, or lower what is asked for"
    return "Ask whoever made the policy that it names"


def _level(visit: Visit, space: str) -> Finding:
    found = visit.kube.find(f"/api/v1/namespaces/{space}")
    if found is None:
        return skipped("pod security", f"there is no namespace {space}")
    level = found["metadata"].get("labels", {}).get(_LEVEL, "")
    if not level:
        fix = f"kubectl label namespace {space} {_LEVEL}=restricted"
        return ok("pod security", f"{space}: nothing is enforced (to enforce what our pods satisfy: {fix})")
    return ok("pod security", f"{space}: {level}, which pods of the manifests satisfy")


def _quotas(visit: Visit, space: str) -> Iterator[Finding]:
    for quota in visit.kube.items(f"/api/v1/namespaces/{space}/resourcequotas"):
        hard, used = quota.get("status", {}).get("hard", {}), quota.get("status", {}).get("used", {})
        name = f"{space}/{quota['metadata']['name']}"
        full = [key for key in hard if key in used and quantity(used[key]) >= quantity(hard[key])]
        told = ", ".join(f"{key} {used.get(key, '0')} of {hard[key]}" for key in sorted(full or hard))
        if full:
            yield failed(
                "quotas", f"{name} is used up: {told}", f"kubectl describe resourcequota -n {space}; raise it, or end what nobody needs"
            )
        else:
            yield ok("quotas", f"{name}: {told}")
