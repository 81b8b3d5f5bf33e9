"""The flow: every step, what it takes from the others, and the exit step that reports whatever happened.

ingest ─► validate_data ─┬─► train_cloud ──► evaluate_cloud ────────────────────┐
                         └─► train_mobile ─► quantize_mobile ─► evaluate_mobile ┤
       ┌────────────────────────────────────────────────────────────────────────┘
       ├─► compare_pair ───┬─► assemble_release ─► roll_out_cloud ─► publish_mobile
       └─► validate_infra ─┘

At a site that shares work out, plan_shards and as many ingest_shard as the data is worth come before ingest, and shards come before
each evaluation.
"""

import json
from collections.abc import Callable
from typing import Any

from kfp import dsl

from components.assemble_release.component import assemble_release
from components.compare_pair.component import compare_pair
from components.evaluate_cloud.component import evaluate_cloud
from components.evaluate_cloud_shard.component import evaluate_cloud_shard
from components.evaluate_mobile.component import evaluate_mobile
from components.evaluate_mobile_shard.component import evaluate_mobile_shard
from components.publish_mobile.component import publish_mobile
from components.quantize_mobile.component import quantize_mobile
from components.report.component import report
from components.roll_out_cloud.component import roll_out_cloud
from components.train_cloud.component import train_cloud
from components.train_mobile.component import train_mobile
from components.validate_data.component import validate_data
from components.validate_infra.component import validate_infra
from pipelines.run_form import SETTINGS_FIELDS, with_form
from pipelines.sharded import Steps
from pipelines.step_needs import NEEDS
from pipelines.targets import Target

NAME = "dual-deploy"
NOT_BLESSED = "NOT BLESSED"
SUMMARY = "Train, judge and ship a pair of classifiers."
DESCRIPTION = """Trains a **pair** of image classifiers from the same data, a cloud model and a full int8 mobile one, measures both,
and ships the pair only if nothing is worse or broken.

1. **ingest**, **validate_data**: labelled images become checked examples
2. **train_cloud**, **train_mobile**, **quantize_mobile**: two models from the same examples
3. **evaluate_cloud**, **evaluate_mobile**, **compare_pair**, **validate_infra**: measured, compared, loaded as in production
4. **assemble_release**: an immutable release, or *NOT BLESSED* with every reason
5. **roll_out_cloud**, **publish_mobile**: the live traffic moves, then the channel names the pair; both halves or nothing
6. **report**: what happened and why, also when a step failed
"""


def trace(target: Target) -> Any:
    """The pipeline as KFP sees it, traced for one target."""
    function = with_form(target.parameters(), lambda form: _flow(target, form), summary=SUMMARY)
    return dsl.pipeline(name=NAME, display_name="Dual Deploy", description=DESCRIPTION, **target.pipeline_options())(function)


def _flow(target: Target, form: dict[str, Any]) -> None:
    shared = {"store": form["store"], "run_id": target.run_id(form)}

    def add(step: Callable[..., Any], **inputs: Any) -> Any:
        name = str(step.name).replace("-", "_")  # pyright: ignore[reportFunctionMemberAccess] - a component, not a plain function
        task = step(**inputs, **shared)
        target.place(task, name, NEEDS[name], form)
        return task

    with dsl.ExitHandler(add(report), name="flow"):
        release = _train_and_judge(Steps(add, target.sharding()), _ingest_inputs(target, form))
        with dsl.If(release.output != NOT_BLESSED, name="ship"):
            rolled = add(roll_out_cloud, release=release.output)
            add(publish_mobile, release=release.output).after(rolled)


def _ingest_inputs(target: Target, form: dict[str, Any]) -> dict[str, Any]:
    """The fields that become settings, what the site says, and the accelerator, which is checked before anything is placed by it."""
    fields = {parameter.name: form[parameter.name] for parameter in SETTINGS_FIELDS}
    accelerator = {name: form[name] for name in ("accelerator_type", "accelerator_count") if name in form}
    site = target.site_settings()
    return {"data": form["data"], **fields, **accelerator, **({"site": json.dumps(site, sort_keys=True)} if site else {})}


def _train_and_judge(steps: Steps, ingest_inputs: dict[str, Any]) -> Any:
    add = steps.add
    examples = steps.ingest(ingest_inputs).outputs["examples"]
    checked = add(validate_data, examples=examples)
    cloud_model = add(train_cloud, examples=examples).after(checked).outputs["model"]
    cloud = steps.evaluate(evaluate_cloud, evaluate_cloud_shard, examples=examples, model=cloud_model).outputs["evaluation"]
    float_model = add(train_mobile, examples=examples).after(checked).outputs["model"]
    mobile_model = add(quantize_mobile, examples=examples, model=float_model).outputs["quantized"]
    mobile = steps.evaluate(evaluate_mobile, evaluate_mobile_shard, examples=examples, model=mobile_model).outputs["evaluation"]
    judged = {"examples": examples, "cloud": cloud, "mobile": mobile}
    pair = add(compare_pair, **judged).outputs["pair"]
    servable = add(validate_infra, cloud_model=cloud_model, mobile_model=mobile_model, **judged).outputs["servable"]
    return add(assemble_release, mobile_model=mobile_model, servable=servable, pair=pair, **judged)
