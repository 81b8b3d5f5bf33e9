"""The flow: every step, what it takes from the others, and the exit step that reports whatever happened.

ingest ─► validate_data ─┬─► train_cloud ──► evaluate_cloud ────────────────────┐
                         └─► train_mobile ─► quantize_mobile ─► evaluate_mobile ┤
       ┌────────────────────────────────────────────────────────────────────────┘
       ├─► compare_pair ───┬─► assemble_release ─► roll_out_cloud ─► publish_mobile
       └─► validate_infra ─┘
"""

from collections.abc import Callable
from typing import Any

from kfp import dsl

from components.assemble_release.component import assemble_release
from components.compare_pair.component import compare_pair
from components.evaluate_cloud.component import evaluate_cloud
from components.evaluate_mobile.component import evaluate_mobile
from components.ingest.component import ingest
from components.publish_mobile.component import publish_mobile
from components.quantize_mobile.component import quantize_mobile
from components.report.component import report
from components.roll_out_cloud.component import roll_out_cloud
from components.train_cloud.component import train_cloud
from components.train_mobile.component import train_mobile
from components.validate_data.component import validate_data
from components.validate_infra.component import validate_infra
from pipelines.targets import Needs, Target

NOT_BLESSED = "NOT BLESSED"
_LIGHT = Needs()
_DATA = Needs(cpu="4", memory="8G")
_TRAIN = Needs(cpu="8", memory="16G", accelerator=True)


def trace(target: Target) -> Any:
    """The pipeline as KFP sees it, traced for one target."""

    @dsl.pipeline(name="dual-deploy", description="One run: a served cloud classifier and a published int8 mobile one.")
    def dual(data: str, store: str, settings: str, run_id: str) -> None:
        """Train, judge and ship a pair of classifiers.

        Args:
            data: Folder, CSV, archive or TFRecords, local or http(s)://, gs://, s3://; or `flowers`, or `drawn`.
            store: Where releases, channels and run records live: a folder, gs:// or s3://.
            settings: The run's settings as JSON (`dual settings` prints them).
            run_id: Name of this run's folder in the store.
        """
        shared = {"settings": settings, "store": store, "run_id": run_id}
        with dsl.ExitHandler(_placed(target, report, _LIGHT, **shared), name="flow"):
            release = _train_and_judge(target, data, shared)
            with dsl.If(release.output != NOT_BLESSED, name="ship"):
                rolled = _placed(target, roll_out_cloud, _LIGHT, release=release.output, **shared)
                _placed(target, publish_mobile, _LIGHT, release=release.output, **shared).after(rolled)

    return dual


def _train_and_judge(target: Target, data: Any, shared: dict[str, Any]) -> Any:
    def add(step: Callable[..., Any], needs: Needs, **inputs: Any) -> Any:
        return _placed(target, step, needs, **inputs, **shared)

    examples = add(ingest, _DATA, data=data).outputs["examples"]
    checked = add(validate_data, _DATA, examples=examples)
    cloud_model = add(train_cloud, _TRAIN, examples=examples).after(checked).outputs["model"]
    cloud = add(evaluate_cloud, _DATA, examples=examples, model=cloud_model).outputs["evaluation"]
    float_model = add(train_mobile, _TRAIN, examples=examples).after(checked).outputs["model"]
    mobile_model = add(quantize_mobile, _TRAIN, examples=examples, model=float_model).outputs["quantized"]
    mobile = add(evaluate_mobile, _DATA, examples=examples, model=mobile_model).outputs["evaluation"]
    judged = {"examples": examples, "cloud": cloud, "mobile": mobile}
    pair = add(compare_pair, _LIGHT, **judged).outputs["pair"]
    servable = add(validate_infra, _DATA, cloud_model=cloud_model, mobile_model=mobile_model, **judged).outputs["servable"]
    return add(assemble_release, _LIGHT, mobile_model=mobile_model, servable=servable, pair=pair, **judged)


def _placed(target: Target, step: Callable[..., Any], needs: Needs, **inputs: Any) -> Any:
    task = step(**inputs)
    target.place(task, needs)
    return task
