"""The pod of one task of a compiled pipeline: what KFP makes of the executor and of its Kubernetes configuration, only stricter.

KFP's own parts are in backend/src/v2/driver/{driver,k8s}.go and backend/src/v2/compiler/argocompiler/container.go (kubeflow/pipelines):
resources, security context, volumes, environment, labels, deadline, scratch volumes. Stricter: Pod Security `restricted`, a read-only root.
"""

import json

from tests.live.compiled import Json, Task

SCRATCH = ("/gcs", "/minio", "/s3", "/.local", "/.cache", "/.config")
"""Where KFP mounts empty volumes into every task."""
_KNOWN = {"activeDeadlineSeconds", "podMetadata", "secretAsEnv", "securityContext", "emptyDirMounts", "nodeSelector", "tolerations"}
LAUNCHER = "/kfp-launcher"


def pod_of(task: Task, namespace: str, config_map: str, report: str) -> Json:
    """The pod; the launcher and the executor input are in a ConfigMap."""
    unknown = set(task.platform) - _KNOWN
    assert not unknown, f"{task.name}: this does not know {sorted(unknown)}"
    _refuse_placement(task)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": task.name, "namespace": namespace, **task.platform.get("podMetadata", {})},
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": "pipeline-runner",
            "activeDeadlineSeconds": int(task.platform["activeDeadlineSeconds"]),
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [_container(task, report)],
            "volumes": _volumes(task, config_map),
        },
    }


def config_map_of(task: Task, name: str, namespace: str, launcher: str) -> Json:
    """What the pod's launcher reads."""
    data = {"launcher.py": launcher, "input.json": json.dumps(task.executor_input)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data}


def _container(task: Task, report: str) -> Json:
    container = task.container
    launch = ["python3", f"{LAUNCHER}/launcher.py", f"{LAUNCHER}/input.json", report]
    # As strings in the compiled file, as numbers in a pod.
    wanted = {key: int(value) if isinstance(value, str) else value for key, value in task.platform.get("securityContext", {}).items()}
    confined = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    return {
        "name": "main",
        "image": container["image"],
        "command": launch,
        "args": [*container["command"], *container["args"]],
        "env": [*container.get("env", []), *_secrets(task)],
        "resources": _resources(container["resources"]),
        "securityContext": {"runAsNonRoot": True, **wanted, **confined},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in _mounts(task)],
    }


def _resources(compiled: Json) -> Json:
    kinds = {"requests": ("resourceCpuRequest", "resourceMemoryRequest"), "limits": ("resourceCpuLimit", "resourceMemoryLimit")}
    return {kind: {"cpu": compiled[cpu], "memory": compiled[memory]} for kind, (cpu, memory) in kinds.items()}


def _secrets(task: Task) -> list[Json]:
    found = []
    for each in task.platform.get("secretAsEnv", []):
        for key in each["keyToEnv"]:
            reference = {"name": each["secretName"], "key": key["secretKey"], "optional": each.get("optional", False)}
            found.append({"name": key["envVar"], "valueFrom": {"secretKeyRef": reference}})
    return found


def _mounts(task: Task) -> list[tuple[str, str]]:
    scratch = [(path.strip("/.") + "-scratch", path) for path in SCRATCH]
    own = [(each["volumeName"], each["mountPath"]) for each in task.platform.get("emptyDirMounts", [])]
    return [("launcher", LAUNCHER), ("tmp", "/tmp"), *scratch, *own]  # noqa: S108


def _volumes(task: Task, config_map: str) -> list[Json]:
    own = [{"name": each["volumeName"], "emptyDir": _empty_dir(each)} for each in task.platform.get("emptyDirMounts", [])]
    known = {each["name"] for each in own} | {"launcher"}
    scratch = [{"name": name, "emptyDir": {}} for name, _ in _mounts(task) if name not in known]
    return [{"name": "launcher", "configMap": {"name": config_map}}, *scratch, *own]


def _empty_dir(mount: Json) -> Json:
    return {key: mount[key] for key in ("medium", "sizeLimit") if key in mount}


def _refuse_placement(task: Task) -> None:
    """Selectors, tolerations and accelerators come as parameters; this node is the only one, so they have to be empty."""
    values = task.executor_input["inputs"]["parameterValues"]
    placed = {key: value for key in ("node_selector", "tolerations") if (value := values.get(f"pipelinechannel--{key}"))}
    assert not placed, f"{task.name}: placed by {placed}"
    assert values.get("pipelinechannel--accelerator_count", "0") == "0", f"{task.name}: there is no accelerator"
