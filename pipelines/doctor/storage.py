"""Volumes: a StorageClass for claims, and the claims that pods of runs and of the server mount."""

from collections.abc import Iterator

from pipelines.doctor.finding import Finding, failed, ok, warning
from pipelines.doctor.kube import Json
from pipelines.doctor.visit import Visit

_DEFAULT = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")


def check_storage_classes(visit: Visit) -> list[Finding]:
    """There is a default StorageClass: a claim that names none would wait for ever without."""
    found = list(visit.kube.items("/apis/storage.k8s.io/v1/storageclasses"))
    names = ", ".join(each["metadata"]["name"] for each in found) or "none"
    default = [each["metadata"]["name"] for each in found if _is_default(each)]
    if len(default) == 1:
        return [ok("storage classes", f"{names}; default {default[0]}")]
    if default:
        fix = "kubectl annotate storageclass NAME storageclass.kubernetes.io/is-default-class- "
        return [warning("storage classes", f"several defaults: {', '.join(default)}; the newest one counts", fix.strip())]
    fix = "kubectl annotate storageclass NAME storageclass.kubernetes.io/is-default-class=true   (or name the class in each claim)"
    return [warning("storage classes", f"{names}; no default: claims that name no class stay Pending", fix)]


def check_claims(visit: Visit) -> list[Finding]:
    """The claims of both namespaces are bound; the site's cache volume is one that several pods may mount."""
    spaces = visit.namespaces
    claims = {space: list(visit.kube.items(f"/api/v1/namespaces/{space}/persistentvolumeclaims")) for space in spaces}
    waiting = _late_binding(visit)
    found = [finding for space in claims for claim in claims[space] for finding in _claim(claim, space, waiting)]
    bound = sum(_phase(claim) == "Bound" for space in claims for claim in claims[space])
    cache = list(_cache(visit, claims.get(visit.runs_namespace, [])))
    return [*(found or [ok("claims", f"{bound} bound, none waits")]), *cache]


def _claim(claim: Json, space: str, late: set[str]) -> Iterator[Finding]:
    name, storage = f"{space}/{claim['metadata']['name']}", claim["spec"].get("storageClassName")
    if _phase(claim) == "Lost":
        yield failed("claims", f"{name} lost its volume", f"kubectl describe pvc {claim['metadata']['name']} -n {space}")
    elif _phase(claim) == "Pending" and storage not in late:
        why = f"no volume of class '{storage}'" if storage else "no class, and no volume that it is bound to by name"
        yield failed("claims", f"{name} waits: {why}", f"kubectl describe pvc {claim['metadata']['name']} -n {space}")


def _cache(visit: Visit, claims: list[Json]) -> Iterator[Finding]:
    wanted = visit.site.kubeflow.cache_volume.claim
    if not wanted:
        return
    claim, where = next((each for each in claims if each["metadata"]["name"] == wanted), None), f"{visit.runs_namespace}/{wanted}"
    if claim is None:
        fix = f"kubectl create -n {visit.runs_namespace} -f CLAIM.yaml   (accessModes: [ReadWriteMany])"
        yield failed("cache volume", f"there is no claim {where}: pods that mount it stay Pending", fix)
        return
    modes = claim["spec"].get("accessModes", [])
    if "ReadWriteMany" not in modes:
        what = f"{where} can be mounted on one node only ({', '.join(modes)}): parallel steps wait for each other"
        yield warning("cache volume", what, "Use a class with ReadWriteMany (NFS, CephFS, Filestore)")
    else:
        yield ok("cache volume", f"{where} is {_phase(claim)}, several pods may mount it")


def _late_binding(visit: Visit) -> set[str]:
    """Classes whose claims wait for the first pod: Pending is their normal state."""
    classes = visit.kube.items("/apis/storage.k8s.io/v1/storageclasses")
    return {each["metadata"]["name"] for each in classes if each.get("volumeBindingMode") == "WaitForFirstConsumer"}


def _phase(claim: Json) -> str:
    return str(claim.get("status", {}).get("phase", "Pending"))


def _is_default(storage_class: Json) -> bool:
    annotations = storage_class["metadata"].get("annotations", {})
    return any(annotations.get(key) == "true" for key in _DEFAULT)
