"""The form of a run where nobody resolves settings beforehand (Kubeflow, Vertex): its fields, as layers over a profile.

    defaults  <  profile  <  the site's settings  <  `settings`  <  `spans`, `thresholds`, `rollout_strategy`, `rollout_steps`

The site's settings are compiled into the pipeline. A field that is left empty says nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.configuration.layers import Layer, parse_mapping, parse_yaml, profile_layer, resolve
from components.configuration.model import Settings
from components.core.errors import UsageError
from components.core.run_settings import write_settings
from components.core.stores import Store

_RESOURCE = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?/[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?")
"""An extended resource: a domain and a name."""

GATES = ("evaluate_cloud", "evaluate_mobile", "compare_pair")
"""The steps that have a gate of thresholds."""


@dataclass(frozen=True, kw_only=True)
class RunForm:
    """What a person entered; every text may be empty, and JSON or YAML where it is not a plain word."""

    profile: str = ""
    """One of the profiles that come with the package; empty: none, `settings` holds everything."""
    site: str = ""
    """The site's settings, as compiled into the pipeline."""
    settings: str = ""
    """Any settings, nested as in docs/configuration.md."""
    spans: str = ""
    thresholds: str = ""
    """{step: {metric: {min, max, …}}} for the steps with a gate."""
    rollout_strategy: str = ""
    rollout_steps: str = ""
    """Weights of the canary in percent, as numbers or {weight, pause}."""
    accelerator_type: str = ""
    """Of the training steps' pods. No setting: Kubeflow places them by it, and fails in a way that nobody understands if it is wrong."""
    accelerator_count: str = ""


def begin_run(store: Store, run_id: str, form: RunForm) -> None:
    """Check the form, resolve the settings and keep them in the run's record for all steps.

    Raises `UsageError` that names the field and what was found in it, `AlreadyExistsError` if the run began with other settings.
    """
    _check_accelerator(form.accelerator_type, form.accelerator_count)
    write_settings(store, run_id, resolve_form(form).model_dump_json())


def _check_accelerator(kind: str, count: str) -> None:
    if kind and not _RESOURCE.fullmatch(kind):
        fix = "Kubernetes knows GPUs as nvidia.com/gpu; which GPU is chosen by the field node_selector"
        raise UsageError(f"'{kind}' is no resource of Kubernetes", where="field accelerator_type", fix=fix)
    if count and not count.isdecimal():
        raise UsageError(f"'{count}' is no number", where="field accelerator_count", fix="Write 0, 1, 2 …")


def resolve_form(form: RunForm) -> Settings:
    """The settings that the form comes to; `UsageError` names the field and what was found in it."""
    profile = [profile_layer(form.profile, where="field profile")] if form.profile else []
    site = ("the site's settings", parse_mapping(form.site, where="the site's settings"))
    settings = ("field settings", parse_mapping(form.settings, where="field settings"))
    return resolve([*profile, site, settings, _spans(form.spans), _thresholds(form.thresholds), *_rollout(form)])


def _spans(text: str) -> Layer:
    return ("field spans", {"ingest": {"spans": text}} if text else {})


def _thresholds(text: str) -> Layer:
    where = "field thresholds"
    steps = parse_mapping(text, where=where)
    for step, thresholds in steps.items():
        if step not in GATES:
            example = '{"evaluate_mobile": {"accuracy": {"min": 0.8}}}'
            raise UsageError(f"there is no gate '{step}'", where=where, fix=f"Known: {', '.join(GATES)}. For example {example}")
        if not isinstance(thresholds, Mapping):
            raise UsageError(f"'{step}' is {thresholds!r}, not metrics", where=where, fix='Write for example {"accuracy": {"min": 0.8}}')
    return (where, {step: {"gate": {"thresholds": thresholds}} for step, thresholds in steps.items()})


def _rollout(form: RunForm) -> list[Layer]:
    strategy = {"strategy": form.rollout_strategy} if form.rollout_strategy else {}
    steps = _steps(form.rollout_steps)
    return [("field rollout_strategy", _plan(strategy)), ("field rollout_steps", _plan({"steps": steps} if steps else {}))]


def _plan(plan: dict[str, Any]) -> dict[str, Any]:
    return {"roll_out_cloud": {"kubernetes": {"plan": plan}}} if plan else {}


def _steps(text: str) -> list[Any]:
    where = "field rollout_steps"
    found = parse_yaml(text, where=where) or []
    if not isinstance(found, list):
        raise UsageError(f"{text!r} is no list", where=where, fix='Write for example [10, 50] or [{"weight": 10, "pause": 60}]')
    return [step if isinstance(step, Mapping) else {"weight": step} for step in found]
