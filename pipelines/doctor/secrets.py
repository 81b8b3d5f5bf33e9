"""Secrets that pods of runs and of the server get: that they are there, never what is in them."""

from collections.abc import Iterator

from pipelines.doctor.finding import Finding, failed, ok, warning
from pipelines.doctor.kube import METADATA_ONLY
from pipelines.doctor.visit import Visit


def check_secrets(visit: Visit) -> list[Finding]:
    """Every Secret that the site's file and the template name exists; optional ones may be missing."""
    needed = list(dict.fromkeys(_needed(visit)))
    if not needed:
        return [ok("secrets", "none is needed")]
    spaces = {space for space, _, _ in needed}
    there = {space: {each["metadata"]["name"] for each in _names(visit, space)} for space in spaces}
    missing = [(space, name, optional) for space, name, optional in needed if name not in there[space]]
    found = [_missing(*each) for each in missing]
    names = ", ".join(f"{space}/{name}" for space, name, optional in needed if (space, name, optional) not in missing)
    return [*found, *([ok("secrets", f"{names} there")] if names else [])]


def _names(visit: Visit, space: str) -> list[dict[str, dict[str, str]]]:
    # Metadata only: the values stay in the API server.
    return list(visit.kube.items(f"/api/v1/namespaces/{space}/secrets", accept=METADATA_ONLY))


def _needed(visit: Visit) -> Iterator[tuple[str, str, bool]]:
    """(namespace, name, whether pods start without it)."""
    site, runs = visit.site.kubeflow, visit.runs_namespace
    yield from ((runs, secret.name, secret.optional) for secret in [*site.secrets, *site.secret_files])
    yield from ((runs, name, False) for name in site.image_pull_secrets)
    path = f"/apis/apps/v1/namespaces/{visit.serving_namespace}/deployments/{visit.name}"
    pod = (visit.kube.find(path) or {}).get("spec", {}).get("template", {}).get("spec", {})
    for container in [*pod.get("initContainers", []), *pod.get("containers", [])]:
        for variable in container.get("env", []):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference:
                yield visit.serving_namespace, reference["name"], bool(reference.get("optional"))
    yield from ((visit.serving_namespace, each["name"], False) for each in pod.get("imagePullSecrets", []))


def _missing(space: str, name: str, optional: bool) -> Finding:
    fix = f"kubectl create secret generic {name} -n {space} --from-literal=KEY=…"
    if optional:
        return ok("secrets", f"{space}/{name} is not there; pods start without it (an s3:// store's credentials come from it)")
    return failed("secrets", f"{space}/{name} is not there: pods that need it do not start", fix)


def check_s3_credentials(visit: Visit) -> list[Finding]:
    """An s3:// store needs credentials in the runs' pods, which only a Secret or the cluster's identity can bring."""
    if not visit.store.startswith("s3://"):
        return []
    names = {secret.name for secret in visit.site.kubeflow.secrets}
    there = {each["metadata"]["name"] for each in _names(visit, visit.runs_namespace)}
    if names & there:
        return [ok("secrets (store)", f"{visit.runs_namespace}/{', '.join(sorted(names & there))} holds the store's credentials")]
    fix = (
        f"kubectl create secret generic dual-store -n {visit.runs_namespace} --from-literal=AWS_ACCESS_KEY_ID=… "
        "--from-literal=AWS_SECRET_ACCESS_KEY=… --from-literal=AWS_ENDPOINT_URL=…"
    )
    what = f"the store is {visit.store}, and {visit.runs_namespace} has no Secret {' or '.join(sorted(names)) or 'for it'}"
    return [warning("secrets (store)", f"{what}: steps need another identity that may write it", fix)]
