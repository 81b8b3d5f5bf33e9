"""Writes the generated parts of docs/: the configuration reference, from the settings model itself.

Usage: python -m pipelines.docs [--check]
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from functools import reduce
from operator import or_
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from components.core.gate import Gate, Threshold
from pipelines.settings import PROFILES, Settings, profile_names
from pipelines.step_needs import NEEDS
from pipelines.targets import site
from pipelines.targets.needs import Needs
from serving.rollout.analysis.settings import AnalysisSettings, PrometheusMetric, WebhookMetric
from serving.rollout.cluster.settings import Plan, Step

CONFIGURATION = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"

_INTRODUCTION = """# Configuration reference

Generated from the settings model by `make docs`; a test fails when it is out of date.

Five layers, each stronger than the one before: **defaults < profile < `--config FILE` < environment < `--set key=value`**.
A profile is a YAML file that you can copy and edit (`--profile my.yaml`). In the environment a key is spelled
`DUAL_TRAIN_CLOUD__IMAGE_SIZE=96`, as a flag `--set train_cloud.image_size=96`. `dual settings` prints what a run would start with.
An unknown key, a wrong type or a value out of range ends the run before it starts (exit code 2), and the message names the key,
the layer and what was found.
"""


def configuration() -> str:
    """The configuration reference as Markdown."""
    lines = [_INTRODUCTION]
    top = [(name, info) for name, info in Settings.model_fields.items() if _model(info.annotation) is None]
    lines += ["## Top level", "", *_rows(top), ""]
    for name, info in Settings.model_fields.items():
        model = _model(info.annotation)
        if model is not None:
            lines += [f"## {name}", "", (model.__doc__ or "").strip().split("\n\n")[0].replace("\n", " "), ""]
            lines += [*_rows(_flat(model, info.default)), ""]
    lines += _gates()
    lines += _plan()
    lines += _sites()
    lines += ["## Profiles", "", "What each profile sets on top of the defaults.", ""]
    for name in profile_names():
        lines += [f"### {name}", "", "```yaml", (PROFILES / f"{name}.yaml").read_text().rstrip(), "```", ""]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Write the files; with --check only say (exit 1) whether one is out of date."""
    text = configuration()
    current = CONFIGURATION.read_text() if CONFIGURATION.exists() else ""
    if "--check" in arguments:
        if current != text:
            sys.stderr.write(f"{CONFIGURATION} is out of date: run `make docs`\n")
        return int(current != text)
    CONFIGURATION.write_text(text)
    return 0


def _gates() -> list[str]:
    rows = ["## Gates", "", "Every `gate` holds these:", "", *_rows(list(Gate.model_fields.items())), ""]
    return [*rows, "A threshold holds any of:", "", *_rows(list(Threshold.model_fields.items())), ""]


def _plan() -> list[str]:
    where = "`roll_out_cloud.kubernetes.plan`, the file of `dual rollout start --plan`, or `settings.yaml` in the ConfigMap "
    where += "`<name>-rollout-settings` ([operating](operate.md) explains it):"
    lines = ["## Rollout plan", "", f"The course of a rollout on Kubernetes: {where}", "", *_rows(_flat(Plan, Plan())), ""]
    for title, model in {"A step": Step, "A Prometheus metric": PrometheusMetric, "A webhook metric": WebhookMetric}.items():
        said = (model.__doc__ or "").strip().split("\n\n")[0]
        lines += [f"{title}: {said}", "", *_rows(list(model.model_fields.items())), ""]
    return lines


def _sites() -> list[str]:
    lines = ["## Sites", "", "What `dual compile --config FILE` reads ([targets](targets.md) explains it), a section for each target.", ""]
    for name, info in site.Site.model_fields.items():
        model = _model(info.annotation)
        if model is not None:
            lines += [f"### Site: {name}", "", (model.__doc__ or "").strip(), "", *_rows(_flat(model, info.default)), ""]
    parts = {"A step of `kubeflow.steps`": site.StepNeeds, "A step of `vertex.steps`": site.VertexStepNeeds, "A secret": site.Secret}
    parts |= {"Secret files": site.SecretFiles, "A toleration": site.Toleration}
    lines += ["What steps ask for by default:", "", *_needs(), ""]
    for title, model in parts.items():
        lines += [f"{title}: {(model.__doc__ or '').strip()}", "", *_rows(list(model.model_fields.items())), ""]
    return lines


def _needs() -> list[str]:
    shown = [field.name for field in fields(Needs) if field.name != "image"]
    head = [f"| step | {' | '.join(f'`{name}`' for name in shown)} |", "| --- " * (len(shown) + 1) + "|"]
    return head + [f"| `{step}` | {' | '.join(_plain(getattr(needs, name)) for name in shown)} |" for step, needs in NEEDS.items()]


def _plain(value: Any) -> str:
    return ("yes" if value else "") if isinstance(value, bool) else str(value)


def _rows(entries: list[tuple[str, FieldInfo]]) -> list[str]:
    head = ["| key | type | default | what it does |", "| --- | --- | --- | --- |"]
    return head + [f"| `{name}` | {_type(info)} | {_default(info)} | {_cell(info.description or '')} |" for name, info in entries]


def _flat(model: type[BaseModel], default: Any, prefix: str = "") -> list[tuple[str, FieldInfo]]:
    return list(_walk(model, default, prefix))


def _walk(model: type[BaseModel], default: Any, prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, info in model.model_fields.items():
        inner = _model(info.annotation)
        value = getattr(default, name, info.default) if isinstance(default, BaseModel) else info.get_default(call_default_factory=True)
        if inner is AnalysisSettings and prefix:
            text = f"{info.description} Its keys are those of `analysis` in the rollout plan."
            yield f"{prefix}{name}", FieldInfo(annotation=info.annotation, default={}, description=text)
        elif inner is not None and inner is not Gate:
            yield from _walk(inner, value, f"{prefix}{name}.")
        else:
            shown = FieldInfo(annotation=info.annotation, default=value, description=info.description)
            yield f"{prefix}{name}", shown


def _model(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _type(info: FieldInfo) -> str:
    annotation = _bare(info.annotation)
    if get_origin(annotation) is None and isinstance(annotation, type):
        return annotation.__name__
    names = [json.dumps(arg) if isinstance(arg, str) else getattr(arg, "__name__", str(arg)) for arg in get_args(annotation)]
    return _cell(" or ".join(names) if "Literal" in str(annotation) else re.sub(r"[a-z_][a-z_.]*\.(?=[A-Z])", "", str(annotation)))


def _bare(annotation: Any) -> Any:
    """Without what narrows it (`Annotated`), at any depth."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    arguments = tuple(_bare(argument) for argument in get_args(annotation))
    if not arguments or "Literal" in str(get_origin(annotation)):
        return annotation
    origin = get_origin(annotation)
    return reduce(or_, arguments) if origin in {Union, UnionType} else origin[arguments]


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    text = yaml.safe_dump(_jsonable(value), default_flow_style=True, allow_unicode=True, width=10_000).strip().removesuffix("...").strip()
    return f"`{_cell(text)}`"


def _jsonable(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    return [_jsonable(item) for item in value] if isinstance(value, tuple | list) else value


def _cell(text: str) -> str:
    return " ".join(text.replace("|", r"\|").split())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
