"""Batch prediction as a pipeline: plan_predictions ─► predict_shard, as many as the images are worth ─► predict."""

from collections.abc import Callable
from typing import Any

from kfp import dsl

from components.plan_predictions.component import plan_predictions
from components.predict.component import predict
from components.predict_shard.component import predict_shard
from pipelines.run_form import RUN_ID, Parameter, with_form
from pipelines.step_needs import NEEDS
from pipelines.targets import Target

NAME = "dual-batch"
SUMMARY = "Classify every image of a folder or a bucket with one release."
DESCRIPTION = """A release answers for every image below a folder or a bucket's prefix.

1. **plan_predictions**: lists the images, pins the release, shares the work out
2. **predict_shard**: the cloud model, the mobile one, or the phone that asks the cloud when it is unsure
3. **predict**: one file of answers in the order of the names, and a summary, in the store under `predictions/`
"""
_FIELDS = (
    Parameter("data", str, "Folder of JPEG and PNG images: gs://bucket/prefix, s3://bucket/prefix, or a mounted folder."),
    Parameter("release", str, "Id of the release that answers; empty: the promoted one.", ""),
    Parameter("model", str, "`cloud`, `mobile`, or `layered` (the phone answers and asks the cloud when it is unsure).", "layered"),
    Parameter("name", str, "Name of the folder below predictions/ in the store; empty: the run's id.", ""),
    Parameter("batch_size", int, "Images that a model is asked about at a time.", 32),
    Parameter("shard_images", int, "Images that one pod takes at most.", 20_000),
    Parameter("most_shards", int, "Most pods; beyond, each takes more images.", 64),
)


def trace(target: Target) -> Any:
    """The pipeline as KFP sees it, traced for one target."""
    function = with_form(_parameters(target), lambda form: _flow(target, form), summary=SUMMARY)
    return dsl.pipeline(name=NAME, display_name="Dual Deploy: batch prediction", description=DESCRIPTION, **target.pipeline_options())(
        function
    )


def _parameters(target: Target) -> list[Parameter]:
    """Ours, and of the target's own the store and, on this machine, the run."""
    own = {parameter.name: parameter for parameter in target.parameters()}
    return [*_FIELDS, own["store"], *([own[RUN_ID.name]] if RUN_ID.name in own else [])]


def _flow(target: Target, form: dict[str, Any]) -> None:
    shared = {"data": form["data"], "store": form["store"], "run_id": target.run_id(form)}

    def add(step: Callable[..., Any], **inputs: Any) -> Any:
        name = str(step.name).replace("-", "_")  # pyright: ignore[reportFunctionMemberAccess] - a component, not a plain function
        task = step(**inputs, **shared)
        target.place(task, name, NEEDS[name], form)
        return task

    sharding = {name: form[name] for name in ("shard_images", "most_shards")}
    plan = add(plan_predictions, release=form["release"], **sharding)
    asked = {"release": plan.outputs["release"], "model": form["model"], "batch_size": form["batch_size"]}
    with dsl.ParallelFor(plan.outputs["shards"], parallelism=target.sharding().parallel) as shard:
        part = add(predict_shard, shard=shard, **asked)
    add(predict, name=form["name"], shards=plan.outputs["shards"], **asked).after(part)
