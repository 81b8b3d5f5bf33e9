"""Kubeflow Pipelines: its API answers this identity, which version it is, whether its parts run, and Argo's retry trap."""

from collections.abc import Iterator
from typing import Any

from components.core.errors import DualError
from pipelines.doctor.finding import Finding, failed, ok, skipped, warning
from pipelines.doctor.kube import Json
from pipelines.doctor.visit import Visit

MADE_FOR = (2, 17)
"""The version that compiled packages were run on."""
PARTS = ("ml-pipeline", "ml-pipeline-persistenceagent", "ml-pipeline-scheduledworkflow", "workflow-controller")
ARGO_SETTINGS = "workflow-controller-configmap"


def check_kfp(visit: Visit) -> list[Finding]:
    """The API answers, as who is asking; `connect` says of every failure what it is: address, certificate, login, rights."""
    from pipelines.submission.kubeflow.client import connect, silent

    connected = connect(_within(visit))
    try:
        # The first thing that needs rights: health is told to everybody.
        with silent():
            answer = connected.kfp.list_runs(page_size=1, namespace=connected.namespace or None)
        mode = f"multi-user, namespace {connected.namespace}" if connected.namespace else "single-user"
        runs = getattr(answer, "total_size", None) or 0
        return [ok("kfp", f"{connected.host} answers, {mode}, as {connected.credentials.name}; {runs} runs")]
    finally:
        connected.close()


def check_kfp_parts(visit: Visit) -> list[Finding]:
    """The Deployments that every run needs have pods, and are of a version that the package is made for."""
    base = f"/apis/apps/v1/namespaces/{visit.system_namespace}/deployments"
    found = {each["metadata"]["name"]: each for each in visit.kube.items(base)}
    if "ml-pipeline" not in found:
        fix = "Install it (docs/kubeflow.md), or name its namespace: --system-namespace"
        return [failed("kfp parts", f"there is no Kubeflow Pipelines in the namespace {visit.system_namespace}", fix)]
    return [_version(found["ml-pipeline"]), *_running(visit, found)]


def check_argo(visit: Visit) -> list[Finding]:
    """Argo's defaults let retries do what the pipeline says (the stock installation's do not)."""
    path = f"/api/v1/namespaces/{visit.system_namespace}/configmaps/{ARGO_SETTINGS}"
    found = visit.kube.find(path)
    if found is None:
        return [skipped("argo retries", f"there is no ConfigMap {ARGO_SETTINGS} in {visit.system_namespace}")]
    strategy = retry_default(found)
    policy = str(strategy.get("retryPolicy", ""))
    if not strategy or policy in ("OnFailure", "Always"):
        told = f"by default {policy}" if policy else "no default that overrides the pipeline's"
        return [ok("argo retries", f"{told}: steps are started again as the pipeline says")]
    # Without a policy Argo's own is OnError in a default for templates.
    what = f"templateDefaults.retryStrategy.retryPolicy is {policy or 'OnError'}: a step that fails is not started again, and a task whose "
    what += "pod can't even be made is tried over and over"
    fix = f"kubectl edit configmap {ARGO_SETTINGS} -n {visit.system_namespace}   (remove retryStrategy, then restart workflow-controller)"
    return [warning("argo retries", what, fix)]


def retry_default(settings: Json) -> Json:
    """The retryStrategy that Argo merges into every template; empty if there is none.

    In the key `workflowDefaults`, or in the older form with everything in one key `config`.
    https://argo-workflows.readthedocs.io/en/latest/default-workflow-specs/
    """
    import yaml

    data = settings.get("data") or {}
    try:
        whole: Any = yaml.safe_load(data.get("config", "")) or {}
        defaults: Any = yaml.safe_load(data.get("workflowDefaults", "")) or whole.get("workflowDefaults") or {}
        return defaults.get("spec", {}).get("templateDefaults", {}).get("retryStrategy") or {}
    except (yaml.YAMLError, AttributeError):
        raise DualError("is not YAML, and Argo reads it", where=f"ConfigMap {ARGO_SETTINGS}", fix="Correct it: kubectl edit") from None


def _within(visit: Visit) -> Any:
    """The connection, with a patience that fits into the check's time."""
    timeout = min(visit.connection.timeout, visit.seconds / 2)
    return visit.connection.model_copy(update={"timeout": timeout, "context": visit.connection.context or visit.context})


def _version(server: Json) -> Finding:
    image = str(server["spec"]["template"]["spec"]["containers"][0]["image"])
    tag = image.partition("@")[0].rpartition(":")[2]
    numbers = tag.removeprefix("v").split(".")
    if not all(number.isdigit() for number in numbers[:2]) or len(numbers) < 2:
        return warning("kfp version", f"can't be told from the image {image}", "Make sure of it: version 2 is needed")
    version = (int(numbers[0]), int(numbers[1]))
    if version[0] < 2:
        return failed("kfp version", f"{tag} can't run pipelines of version 2", "Upgrade Kubeflow Pipelines")
    if version < MADE_FOR:
        return warning("kfp version", f"{tag}; packages were run on {MADE_FOR[0]}.{MADE_FOR[1]}", "Upgrade, or try a small run first")
    return ok("kfp version", tag)


def _running(visit: Visit, found: dict[str, Json]) -> Iterator[Finding]:
    missing = [name for name in PARTS if name not in found]
    down = [name for name in PARTS if name in found and not found[name].get("status", {}).get("availableReplicas")]
    if missing or down:
        told = [*(f"{name} is not installed" for name in missing), *(f"{name} has no pod that is ready" for name in down)]
        fix = f"kubectl get pods -n {visit.system_namespace}; kubectl describe deployment NAME -n {visit.system_namespace}"
        yield failed("kfp parts", "; ".join(told), fix)
    else:
        yield ok("kfp parts", f"{', '.join(PARTS)} run in {visit.system_namespace}")
