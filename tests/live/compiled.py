"""Goes through a compiled pipeline as KFP's driver does: in the order of dependencies, inputs resolved, commands as they are there.

https://github.com/kubeflow/pipelines/blob/master/api/v2alpha1/pipeline_spec.proto
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

Json = dict[str, Any]
_INPUT = re.compile(r"\{\{\$\.inputs\.parameters\['(.+?)'\]\}\}")
_NOT_EQUAL = re.compile(r"inputs\.parameter_values\['(.+?)'\] != '(.+?)'")


@dataclass(frozen=True)
class Outputs:
    """What a task left: parameters, and artifacts as an executor input names them."""

    parameters: Json = field(default_factory=dict)
    artifacts: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One container to run."""

    name: str
    container: Json
    platform: Json
    executor_input: Json


@dataclass
class CompiledRun:
    """One run of a compiled package; `execute` runs a container and returns the executor's output."""

    documents: list[Json]
    run_id: str
    root: str
    """Address below which artifacts lie."""
    execute: Callable[[Task], Json]
    done: list[str] = field(default_factory=list)

    def run(self, **arguments: Any) -> None:
        """Run every task with these arguments; the others have their defaults."""
        root = self.documents[0]["root"]
        self._dag(root["dag"], {**_defaults(root), **arguments})

    def _dag(self, dag: Json, given: Json, passed: Mapping[str, Json] = MappingProxyType({}), turn: str = "") -> None:
        """Run a group; `passed` are the artifacts that it is given, `turn` says which turn of a loop it is."""
        results: dict[str, Outputs] = {}
        for name, task in _in_order(dag["tasks"]):
            results[name] = self._task(f"{name}{turn}", task, given, results, passed)

    def _task(self, name: str, task: Json, given: Json, results: Mapping[str, Outputs], passed: Mapping[str, Json]) -> Outputs:
        component = self.documents[0]["components"][task["componentRef"]["name"]]
        inputs = task.get("inputs", {})
        values = _defaults(component) | self._parameters(inputs.get("parameters", {}), given, results)
        artifacts = {key: _artifact(source, results, passed) for key, source in inputs.get("artifacts", {}).items()}
        if over := task.get("parameterIterator"):
            for number, item in enumerate(values[over["items"]["inputParameter"]]):
                self._dag(component["dag"], {**values, over["itemInput"]: item}, artifacts, f"-{number + 1}")
            return Outputs()
        if "dag" in component:
            if _triggered(task, values):
                self._dag(component["dag"], values, artifacts)
            return Outputs()
        return self._container(name, component, values, artifacts)

    def _container(self, name: str, component: Json, values: Json, artifacts: dict[str, Json]) -> Outputs:
        label = component["executorLabel"]
        defined = component.get("outputDefinitions", {})
        new = {key: self._new_artifact(name, key, each) for key, each in defined.get("artifacts", {}).items()}
        files = {key: {"outputFile": f"/tmp/kfp/outputs/{key}"} for key in defined.get("parameters", {})}  # noqa: S108
        outputs = {"parameters": files, "artifacts": _listed(new), "outputFile": "/tmp/kfp_outputs/output_metadata.json"}  # noqa: S108
        executor_input = {"inputs": {"parameterValues": values, "artifacts": _listed(artifacts)}, "outputs": outputs}
        container = self.documents[0]["deploymentSpec"]["executors"][label]["container"]
        platform = self.documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"].get(label, {})
        told = self.execute(Task(name, container, platform, executor_input))
        self.done.append(name)
        left = {key: each["artifacts"][0] for key, each in told.get("artifacts", {}).items()}
        return Outputs(told.get("parameterValues", {}), {key: {**each, **left.get(key, {})} for key, each in new.items()})

    def _new_artifact(self, task: str, key: str, defined: Json) -> Json:
        uri = f"{self.root}/{self.run_id}/{task}/{key}"
        return {"name": f"{task}/{key}", "type": defined["artifactType"], "uri": uri, "metadata": {}}

    def _parameters(self, sources: Mapping[str, Json], given: Json, results: Mapping[str, Outputs]) -> Json:
        values = {key: self._parameter(source, given, results) for key, source in sources.items()}
        # A constant may name another input of the same task.
        named = {key: _INPUT.fullmatch(value) for key, value in values.items() if isinstance(value, str)}
        return values | {key: values[found[1]] for key, found in named.items() if found}

    def _parameter(self, source: Json, given: Json, results: Mapping[str, Outputs]) -> Any:
        if "componentInputParameter" in source:
            return given[source["componentInputParameter"]]
        if "taskOutputParameter" in source:
            producer = source["taskOutputParameter"]
            return results[producer["producerTask"]].parameters[producer["outputParameterKey"]]
        if "taskFinalStatus" in source:
            producer = source["taskFinalStatus"]["producerTask"]
            return {"state": "COMPLETE", "pipelineJobResourceName": self.run_id, "pipelineTaskName": producer, "error": {}}
        constant = source["runtimeValue"]["constant"]
        return constant.replace("{{$.pipeline_job_uuid}}", self.run_id) if isinstance(constant, str) else constant


def _in_order(tasks: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    """After what they depend on; in the order of their names where nothing else counts."""
    waiting, ended = dict(sorted(tasks.items())), set()
    while waiting:
        name = next(name for name, task in waiting.items() if ended >= set(task.get("dependentTasks", [])))
        ended.add(name)
        yield name, waiting.pop(name)


def _triggered(task: Json, values: Json) -> bool:
    condition = task.get("triggerPolicy", {}).get("condition")
    if condition is None:
        return True
    found = _NOT_EQUAL.fullmatch(condition)
    assert found, f"a condition that this does not know: {condition}"
    return values[found[1]] != found[2]


def _artifact(source: Json, results: Mapping[str, Outputs], passed: Mapping[str, Json]) -> Json:
    if (given := source.get("componentInputArtifact")) is not None:
        return passed[given]
    producer = source["taskOutputArtifact"]
    return results[producer["producerTask"]].artifacts[producer["outputArtifactKey"]]


def _listed(artifacts: Mapping[str, Json]) -> Json:
    return {key: {"artifacts": [each]} for key, each in artifacts.items()}


def _defaults(component: Json) -> Json:
    defined = component.get("inputDefinitions", {}).get("parameters", {})
    return {key: each["defaultValue"] for key, each in defined.items() if "defaultValue" in each}
