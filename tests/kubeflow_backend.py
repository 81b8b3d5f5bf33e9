"""Kubeflow Pipelines' backend in one file: what its driver decides from a compiled package, and what its launcher starts.

It follows the 2.17 sources, refuses what they refuse, and knows nothing of how a package was compiled:
backend/src/v2/driver/{driver,resolve,k8s}.go, backend/src/v2/component/launcher_v2.go, backend/src/v2/compiler/argocompiler
(https://github.com/kubeflow/pipelines). Pods are processes here, artifacts lie in folders, and every pod has copies of its own.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

_TYPES = {"STRING": str, "NUMBER_INTEGER": (int, float), "NUMBER_DOUBLE": (int, float), "BOOLEAN": bool, "LIST": list, "STRUCT": dict}
_INPUT = re.compile(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}")
_CONDITION = re.compile(r"inputs\.parameter_values\['([^']+)'\] (==|!=) '([^']*)'")
_USER = 10001
_RESOURCES = {"Cpu": "cpu", "Memory": "memory"}


class Refused(Exception):
    """The driver or the API server would end the run with this message."""


@dataclass
class Run:
    """What became of a run, by task; of a task in a loop by its name and the number of the iteration, `shard.0`."""

    id: str = field(default_factory=lambda: str(uuid4()))
    states: dict[str, str] = field(default_factory=dict)
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)


class Backend:
    """Runs a package; `answers` are the output parameters of tasks that are not really started (None: all are started)."""

    def __init__(
        self,
        package: str,
        root: Path,
        *,
        answers: Mapping[str, Mapping[str, Any]] | None = None,
        secrets: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        documents = list(yaml.load_all(package, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
        self.spec = documents[0]
        platform = documents[1]["platforms"]["kubernetes"] if len(documents) > 1 else {}
        self.kubernetes = platform.get("deploymentSpec", {}).get("executors", {})
        self.root, self.answers, self.secrets = root, answers, secrets or {}

    def run(self, parameters: Mapping[str, Any], display_name: str = "a run") -> Run:
        """Start a run with these parameters; raises `Refused` where the API server would."""
        run = Run()
        given = self._root_parameters(parameters)
        self._dag(run, self.spec["root"]["dag"], given, {}, {"{{$.pipeline_job_uuid}}": run.id, "{{$.pipeline_job_name}}": display_name})
        return run

    def _root_parameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        defined = self.spec["root"].get("inputDefinitions", {}).get("parameters", {})
        if unknown := set(parameters) - set(defined):
            raise Refused(f"unknown parameters {sorted(unknown)}")
        values = {name: parameters.get(name, spec.get("defaultValue")) for name, spec in defined.items()}
        for name, spec in defined.items():
            _check_type(name, values[name], spec["parameterType"])
        return values

    def _dag(
        self, run: Run, dag: Any, inputs: dict[str, Any], artifacts: dict[str, Any], placeholders: dict[str, str], iteration: str = ""
    ) -> bool:
        """Run the tasks of one group; True if all that were to run succeeded."""
        done: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {}
        waiting = dict(dag["tasks"])
        while waiting:
            name = next(n for n, task in waiting.items() if _upstream(task) <= set(done))
            task = waiting.pop(name)
            label = f"{name}{iteration}"
            run.states[label], outputs, made = self._task(run, label, task, inputs, artifacts, done, placeholders)
            done[name] = (run.states[label], outputs, made)
        return all(state in {"SUCCEEDED", "SKIPPED"} for state, _, _ in done.values())

    def _task(
        self, run: Run, name: str, task: Any, inputs: dict[str, Any], artifacts: dict[str, Any], done: dict[str, Any], words: dict[str, str]
    ) -> tuple[str, dict[str, Any], dict[str, Any]]:
        exits = task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
        if not exits and any(done[upstream][0] != "SUCCEEDED" for upstream in _upstream(task)):
            return "OMITTED", {}, {}
        component = self.spec["components"][task["componentRef"]["name"]]
        mine = {k: _parameter(k, v, inputs, done, words, name) for k, v in task.get("inputs", {}).get("parameters", {}).items()}
        passed = {k: _artifact(v, artifacts, done) for k, v in task.get("inputs", {}).get("artifacts", {}).items()}
        for key, spec in component.get("inputDefinitions", {}).get("parameters", {}).items():
            if key in mine:
                _check_type(key, mine[key], spec["parameterType"])
            elif not spec.get("isOptional") and key != task.get("parameterIterator", {}).get("itemInput"):
                raise Refused(f"{name}: neither value nor default value provided for non-optional parameter {key!r}")
        if not _condition(task, mine):
            return "SKIPPED", {}, {}
        if "parameterIterator" in task:
            return self._loop(run, task, component["dag"], mine, passed, words), {}, {}
        if "dag" in component:
            return ("SUCCEEDED" if self._dag(run, component["dag"], mine, passed, words) else "FAILED"), {}, {}
        run.inputs[name] = mine
        run.pods[name] = self._pod(component["executorLabel"], mine, inputs)
        if self.answers is not None:
            return "SUCCEEDED", dict(self.answers.get(name, {})), dict.fromkeys(component.get("outputDefinitions", {}).get("artifacts", {}))
        return self._start(run, name, component, mine, passed)

    def _loop(self, run: Run, task: Any, dag: Any, mine: dict[str, Any], passed: dict[str, Any], words: dict[str, str]) -> str:
        """The driver starts a group for every item of a list; one that fails does not end the others, and fails the loop."""
        over = task["parameterIterator"]
        items = mine[over["items"]["inputParameter"]]
        limit = task.get("iteratorPolicy", {}).get("parallelismLimit", 0)
        if limit < 0:
            raise Refused(f"parallelism limit {limit}")
        ended = [self._dag(run, dag, {**mine, over["itemInput"]: item}, passed, words, f".{number}") for number, item in enumerate(items)]
        return "SUCCEEDED" if all(ended) else "FAILED"

    def _pod(self, label: str, mine: dict[str, Any], parent: dict[str, Any]) -> dict[str, Any]:
        """The patch of the pod's specification that the driver computes."""
        container = self.spec["deploymentSpec"]["executors"][label]["container"]
        wanted = self.kubernetes.get(label, {})
        environment = {entry["name"]: entry["value"] for entry in container.get("env", [])} | self._secrets(wanted)
        return {
            "image": _resolve(container["image"], mine),
            "resources": _resources(container.get("resources", {}), mine),
            "env": environment,
            "nodeSelector": _node_selector(wanted.get("nodeSelector", {}), parent),
            "tolerations": [t for entry in wanted.get("tolerations", []) for t in _tolerations(entry, parent)],
            "command": [*container["command"], *container["args"]],
            "config": wanted,
        }

    def _secrets(self, wanted: Any) -> dict[str, str]:
        found: dict[str, str] = {}
        for entry in wanted.get("secretAsEnv", []):
            name = entry["secretNameParameter"]["runtimeValue"]["constant"]
            for pair in entry["keyToEnv"]:
                value = self.secrets.get(name, {}).get(pair["secretKey"])
                if value is None and not entry.get("optional"):
                    raise Refused(f"CreateContainerConfigError: key {pair['secretKey']} of secret {name}")
                found |= {} if value is None else {pair["envVar"]: value}
        return found

    def _start(
        self, run: Run, name: str, component: Any, mine: dict[str, Any], passed: dict[str, Any]
    ) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """What the launcher does: inputs copied in, the command run, outputs copied out."""
        pod = self.root / run.id / name
        work, scratch = pod / "workdir", pod / "tmp"
        for folder in (work, scratch, pod / "in", pod / "out"):
            folder.mkdir(parents=True)
        here = {key: {"artifacts": [_copied_in(value, pod / "in" / key)]} for key, value in passed.items()}
        outputs = component.get("outputDefinitions", {})
        out = {
            key: {"artifacts": [{"name": key, "type": spec["artifactType"], "uri": str(pod / "out" / key / key), "metadata": {}}]}
            for key, spec in outputs.get("artifacts", {}).items()
        }
        for entry in out.values():
            Path(entry["artifacts"][0]["uri"]).parent.mkdir(parents=True)
        files = {key: {"outputFile": str(pod / "out" / "parameters" / key)} for key in outputs.get("parameters", {})}
        metadata = pod / "out" / "output_metadata.json"
        told = {
            "inputs": {"parameterValues": mine, "artifacts": here},
            "outputs": {"parameters": files, "artifacts": out, "outputFile": str(metadata)},
        }
        command = [json.dumps(told) if part == "{{$}}" else part for part in run.pods[name]["command"]]
        code, run.logs[name] = self._execute(command, run.pods[name]["env"], pod, work, scratch)
        if left := sorted(path.name for path in work.iterdir()):
            raise AssertionError(f"{name} wrote into its working folder: {left}")
        if code:
            return "FAILED", {}, {}
        values = json.loads(metadata.read_text()).get("parameterValues", {}) if metadata.exists() else {}
        run.outputs[name] = values
        return "SUCCEEDED", values, {key: entry["artifacts"][0] for key, entry in out.items()}

    def _execute(self, command: list[str], environment: dict[str, str], pod: Path, work: Path, scratch: Path) -> tuple[int, str]:
        prefix = _as_nobody(pod)
        work.chmod(0o555)
        path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        base = {"PATH": path, "HOME": "/", "TMPDIR": str(scratch), "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        # Where KFP mounts an empty folder, /.cache and the like, is the root of this machine here.
        base |= {f"XDG_{kind}_HOME": str(scratch / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONDONTWRITEBYTECODE": "1"}
        variables = {**base, **quiet, **environment}
        result = subprocess.run([*prefix, *command], cwd=work, env=variables, capture_output=True, text=True, check=False)
        return result.returncode, result.stdout + result.stderr


@contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that a nameless user can reach; pytest's own are closed to everybody else."""
    with tempfile.TemporaryDirectory(prefix="kubeflow-") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def _as_nobody(pod: Path) -> list[str]:
    """A pod's user is a number without a name or a home: what starts a command so, and gives it the pod's folders (root only)."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        return []
    # Reading needs no rights below, but access(2) asks for them, and TensorFlow calls it.
    assert all(folder.stat().st_mode & 0o001 for folder in pod.parents), f"{pod} can't be reached by others: use open_folder()"
    for folder in (pod, *pod.rglob("*")):
        os.chown(folder, _USER, _USER)
    os.chown(pod / "workdir", 0, 0)
    # Reading stays allowed: the interpreter of a checkout may lie in root's home.
    powers = "-all,+dac_read_search"
    user = ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups"]
    return [*user, f"--inh-caps={powers}", "--ambient-caps=+dac_read_search", f"--bounding-set={powers}"]


def _upstream(task: Any) -> set[str]:
    """Tasks that it waits for: those that it names, and those whose outputs it takes."""
    inputs = task.get("inputs", {})
    entries = [*inputs.get("parameters", {}).values(), *inputs.get("artifacts", {}).values()]
    taken = {entry[kind]["producerTask"] for entry in entries for kind in ("taskOutputParameter", "taskOutputArtifact") if kind in entry}
    return {*task.get("dependentTasks", []), *taken}


def _check_type(name: str, value: Any, kind: str) -> None:
    if kind == "TASK_FINAL_STATUS":
        return
    if value is None:
        raise Refused(f"got null for input parameter {name!r}")
    if not isinstance(value, _TYPES[kind]) or (kind.startswith("NUMBER") and isinstance(value, bool)):
        raise Refused(f"input parameter {name!r} type mismatch: expect {kind}, got {type(value).__name__}")


def _parameter(name: str, spec: Any, inputs: dict[str, Any], done: dict[str, Any], words: dict[str, str], task: str) -> Any:
    if (source := spec.get("componentInputParameter")) is not None:
        if source not in inputs:
            raise Refused(f"{task}.{name}: parent DAG does not have input parameter {source}")
        return inputs[source]
    if "taskOutputParameter" in spec:
        producer = spec["taskOutputParameter"]
        return done[producer["producerTask"]][1][producer["outputParameterKey"]]
    if "taskFinalStatus" in spec:
        state = {"SUCCEEDED": "COMPLETE"}.get(done[spec["taskFinalStatus"]["producerTask"]][0], "FAILED")
        return {"state": state, "pipelineTaskName": spec["taskFinalStatus"]["producerTask"], "error": {}}
    constant = spec["runtimeValue"]["constant"]
    # Only a constant that is a placeholder and nothing else is filled, and only these two of them by 2.17.
    return words.get(constant, constant) if isinstance(constant, str) else constant


def _artifact(spec: Any, artifacts: dict[str, Any], done: dict[str, Any]) -> Any:
    if (source := spec.get("componentInputArtifact")) is not None:
        if source not in artifacts:
            raise Refused(f"parent DAG does not have input artifact {source}")
        return artifacts[source]
    return done[spec["taskOutputArtifact"]["producerTask"]][2][spec["taskOutputArtifact"]["outputArtifactKey"]]


def _copied_in(artifact: Any, folder: Path) -> dict[str, Any]:
    source, target = Path(artifact["uri"]), folder / Path(artifact["uri"]).name
    folder.mkdir()
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.exists():
        shutil.copy(source, target)
    return {**artifact, "uri": str(target)}


def _condition(task: Any, mine: dict[str, Any]) -> bool:
    text = task.get("triggerPolicy", {}).get("condition")
    if not text:
        return True
    match = _CONDITION.fullmatch(" ".join(text.split()))
    if match is None:
        raise NotImplementedError(text)
    return (mine[match[1]] == match[3]) == (match[2] == "==")


def _resolve(text: str, mine: dict[str, Any]) -> str:
    """resolvePodSpecInputRuntimeParameter: of anything but a text, its text is empty."""
    match = _INPUT.fullmatch(text)
    if match is None:
        return text
    if match[1] not in mine:
        raise Refused(f"executorInput did not contain input parameter {match[1]}")
    return mine[match[1]] if isinstance(mine[match[1]], str) else ""


def _resources(wanted: Any, mine: dict[str, Any]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {"requests": {}, "limits": {}}
    for kind, resource in _RESOURCES.items():
        for which, where in (("Request", "requests"), ("Limit", "limits")):
            if text := wanted.get(f"resource{kind}{which}"):
                found[where][resource] = _resolve(text, mine)
    if accelerator := wanted.get("accelerator"):
        name = _resolve(accelerator.get("resourceType") or accelerator.get("type", ""), mine)
        count = _resolve(accelerator.get("resourceCount") or "", mine)
        if name and count:
            found["limits"][name] = str(int(count))
    for resource, limit in found["limits"].items():
        found["requests"].setdefault(resource, limit)
    return found


def _from_parent(spec: Any, parent: dict[str, Any]) -> Any:
    source = spec.get("componentInputParameter")
    if source is None:
        return spec["runtimeValue"]["constant"]
    if source not in parent:
        raise Refused(f"parent DAG does not have input parameter {source}")
    return parent[source]


def _node_selector(wanted: Any, parent: dict[str, Any]) -> dict[str, str]:
    """The labels given at run time replace those that are compiled in."""
    selector = _from_parent(wanted["nodeSelectorJson"], parent) if "nodeSelectorJson" in wanted else wanted.get("labels", {})
    if not isinstance(selector, dict) or not all(isinstance(value, str) for value in selector.values()):
        raise Refused(f"failed to resolve node selector: {selector}")
    return selector


def _tolerations(entry: Any, parent: dict[str, Any]) -> list[dict[str, Any]]:
    if "tolerationJson" not in entry:
        return [entry]
    found = _from_parent(entry["tolerationJson"], parent)
    if not isinstance(found, dict | list):
        raise Refused("encountered unexpected toleration proto value, must be either struct or list type")
    return [found] if isinstance(found, dict) and found else list(found)
