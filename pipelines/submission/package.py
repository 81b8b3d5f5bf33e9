"""A compiled pipeline: one YAML text, what it is called, what it asks for, and a digest that changes with its content.

A package for Kubeflow may hold a second document with what Kubernetes is to do (kfp-kubernetes); it is part of the content.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from components.core.digest import sha256_json
from components.core.errors import UsageError

Kind = Literal["STRING", "NUMBER_INTEGER", "NUMBER_DOUBLE", "BOOLEAN", "LIST", "STRUCT", "TASK_FINAL_STATUS"]
_COMPILE = "Make one with: dual compile --target kubeflow -o pipeline.yaml"


@dataclass(frozen=True)
class Input:
    """One parameter of a pipeline."""

    kind: Kind
    required: bool
    default: Any = None
    description: str = ""


Inputs = Mapping[str, Input]


@dataclass(frozen=True)
class Package:
    """A pipeline that can be submitted."""

    text: str
    name: str
    description: str
    inputs: Inputs
    digest: str
    """Hexadecimal SHA-256 of the content: layout, comments and the order of keys don't count."""

    def version_name(self) -> str:
        """The name of the version that holds this content: the same content has the same name."""
        return f"{self.name}-{self.digest[:12]}"

    def documents(self) -> list[dict[str, Any]]:
        """The parsed YAML."""
        return _documents(self.text, self.name)


def read_package(path: Path) -> Package:
    """The package in a file; `UsageError` if it can't be read or is none."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise UsageError(f"can't be read ({why})", where=str(path), fix=_COMPILE) from None
    return parse_package(text, str(path))


def parse_package(text: str, where: str = "package") -> Package:
    """A package from its YAML; `UsageError` names `where` it came from."""
    documents = _documents(text, where)
    spec = documents[0]
    name = spec.get("pipelineInfo", {}).get("name", "")
    if not name or "root" not in spec:
        raise UsageError("is no compiled pipeline: it has no pipelineInfo.name and root", where=where, fix=_COMPILE)
    description = spec["pipelineInfo"].get("description", "")
    return Package(text, name, description, read_inputs(spec), sha256_json(documents))


def read_inputs(spec: Mapping[str, Any]) -> dict[str, Input]:
    """The parameters of a pipeline spec (IR), in the spec's order.

    A server answers with `{pipeline_spec, platform_spec}` where a package has two documents; both are understood.
    """
    inner = spec.get("pipeline_spec", spec)
    defined = inner.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    return {name: _input(definition) for name, definition in defined.items()}


def with_defaults(given: Mapping[str, Any], inputs: Inputs) -> dict[str, Any]:
    """The parameters that were given, and the defaults of the others."""
    return {**{name: each.default for name, each in inputs.items() if each.default is not None}, **given}


def _input(definition: Mapping[str, Any]) -> Input:
    optional = bool(definition.get("isOptional")) or "defaultValue" in definition
    kind = definition.get("parameterType", "STRING")
    return Input(kind, not optional, definition.get("defaultValue"), definition.get("description", ""))


def _documents(text: str, where: str) -> list[dict[str, Any]]:
    try:
        found = [each for each in yaml.load_all(text, _loader()) if each is not None]
    except yaml.YAMLError as error:
        raise UsageError(f"is not YAML ({' '.join(str(error).split())})", where=where, fix=_COMPILE) from None
    if not found or not all(isinstance(each, dict) for each in found):
        raise UsageError("holds no pipeline", where=where, fix=_COMPILE)
    # JSON knows fewer types than YAML: what the server will see is what counts.
    return json.loads(json.dumps(found, default=str))


def _loader() -> Any:
    # libyaml reads a package of 200 kB in a tenth of the time.
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)
