"""Every check, for which targets, in the order in which they are told."""

from collections.abc import Sequence

from components.core.errors import UsageError
from pipelines.doctor.admission import check_admission, check_pod_security, check_quotas
from pipelines.doctor.clock import check_clock
from pipelines.doctor.cluster import check_cluster, check_namespaces, check_objects
from pipelines.doctor.data import check_data
from pipelines.doctor.examine import CLUSTER, Check, Look
from pipelines.doctor.firebase import check_firebase
from pipelines.doctor.gpus import check_gpus, check_server_gpus
from pipelines.doctor.images import check_images, check_pulls, check_pulls_by_trying
from pipelines.doctor.kfp import check_argo, check_kfp, check_kfp_parts
from pipelines.doctor.kinds import check_kinds
from pipelines.doctor.machine import check_disk, check_memory
from pipelines.doctor.python import check_extras, check_lock, check_python
from pipelines.doctor.rights import check_rights
from pipelines.doctor.secrets import check_s3_credentials, check_secrets
from pipelines.doctor.storage import check_claims, check_storage_classes
from pipelines.doctor.store import check_store
from pipelines.doctor.vertex import check_google, check_vertex

_ALL = ("local", "kubeflow", "vertex")


def _check(name: str, look: Look, about: str, *targets: str) -> Check:
    return Check(name, look, frozenset(targets or _ALL), about)


CHECKS = (
    _check("python", check_python, "the interpreter's version"),
    _check("extras", check_extras, "the packages that the target's commands import"),
    _check("lock", check_lock, "installed versions against uv.lock"),
    _check("disk", check_disk, "room for temporary files and a local store"),
    _check("memory", check_memory, "memory and cores for a run on this machine", "local"),
    _check("data", check_data, "the data source can be opened"),
    _check("store", check_store, "every operation of the store, by trying"),
    _check("clock", check_clock, "this clock against the cluster's and the store's"),
    _check(CLUSTER, check_cluster, "the API server, its version, and who asks", "kubeflow"),
    _check("namespaces", check_namespaces, "the namespaces of the served model and of runs", "kubeflow"),
    _check("manifests", check_objects, "what a rollout copies and reads is applied", "kubeflow"),
    _check("rights", check_rights, "every verb of the manifests' Roles, for this identity and for the steps'", "kubeflow"),
    _check("pod-security", check_pod_security, "Pod Security labels", "kubeflow"),
    _check("quotas", check_quotas, "quotas that are used up", "kubeflow"),
    _check("admission", check_admission, "a dry run of a server pod and of the largest step's pod", "kubeflow"),
    _check("gpus", check_gpus, "GPU nodes, drivers and device plugins, the site's pool", "kubeflow"),
    _check("gpu-server", check_server_gpus, "a node for a template that asks for GPUs", "kubeflow"),
    _check("storage-classes", check_storage_classes, "a default StorageClass", "kubeflow"),
    _check("claims", check_claims, "PersistentVolumeClaims, and the site's cache volume", "kubeflow"),
    _check("secrets", check_secrets, "Secrets that pods name are there", "kubeflow"),
    _check("s3-credentials", check_s3_credentials, "a Secret for an s3:// store", "kubeflow"),
    _check("kinds", check_kinds, "Gateway API, Prometheus' kinds, resource metrics", "kubeflow"),
    _check("kfp", check_kfp, "Kubeflow Pipelines answers this identity", "kubeflow"),
    _check("kfp-parts", check_kfp_parts, "its Deployments run, and their version", "kubeflow"),
    _check("argo", check_argo, "Argo's default retry policy", "kubeflow"),
    _check("images", check_images, "the registry has the images", "kubeflow", "vertex"),
    _check("pulls", check_pulls, "events of failed pulls", "kubeflow"),
    _check("pulls-tried", check_pulls_by_trying, "with --try: a short-lived pod pulls the images", "kubeflow"),
    _check("google", check_google, "application default credentials and a project", "vertex"),
    _check("vertex", check_vertex, "the API in the region, rights, the steps' account", "vertex"),
    _check("firebase", check_firebase, "the Firebase project and its bucket"),
)


def checks_for(target: str, only: Sequence[str] = ()) -> list[Check]:
    """The checks of a target, all or those named; `UsageError` lists what there is."""
    known = [check for check in CHECKS if target in check.targets]
    if unknown := [name for name in only if name not in {check.name for check in known}]:
        fix = f"Known: {', '.join(check.name for check in known)}"
        raise UsageError(f"there is no check '{unknown[0]}' for the target {target}", where="--only", fix=fix)
    return [check for check in known if not only or check.name in only]
