"""Compiled pipelines for tests: one compilation per site, and the parts that tests look at."""

from functools import cache
from typing import Any

import yaml

from pipelines.compile import compile_pipeline
from pipelines.targets import Site, make_target


@cache
def _text(target: str, site: str) -> str:
    return compile_pipeline(make_target(target, Site.model_validate_json(site))).text


@cache
def _parsed(package: str) -> list[Any]:
    return list(yaml.load_all(package, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def text(target: str, **site: Any) -> str:
    """The YAML of a target, its section of the site given by keywords."""
    described = Site.model_validate({target: site} if site else {})
    return _text(target, described.model_dump_json())


def documents(target: str, **site: Any) -> list[Any]:
    """Its documents: the pipeline, and for Kubeflow what Kubernetes is to do; to look at, not to change."""
    return _parsed(text(target, **site))


def executor(target: str, step: str, **site: Any) -> dict[str, Any]:
    """The container of a step."""
    label = f"exec-{step.replace('_', '-')}"
    return documents(target, **site)[0]["deploymentSpec"]["executors"][label]["container"]


def pod(step: str, **site: Any) -> dict[str, Any]:
    """What Kubernetes is to do for a step's pod on Kubeflow."""
    executors = documents("kubeflow", **site)[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return executors[f"exec-{step.replace('_', '-')}"]


def tasks(target: str, **site: Any) -> dict[str, Any]:
    """Every task that is a step, by the step's name."""
    spec = documents(target, **site)[0]
    dags = [spec["root"]["dag"], *(c["dag"] for c in spec["components"].values() if "dag" in c)]
    steps = {name: task for dag in dags for name, task in dag["tasks"].items()}
    return {name.replace("-", "_"): task for name, task in steps.items() if not name.startswith(("exit-handler", "condition"))}


def form(target: str, **site: Any) -> dict[str, Any]:
    """The fields of the run form."""
    return documents(target, **site)[0]["root"]["inputDefinitions"]["parameters"]
