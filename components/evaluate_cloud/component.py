"""evaluate_cloud: the exported cloud model is measured on a split and judged."""

from typing import List, Optional  # noqa: UP035

from kfp import dsl

from components.core.step import step


@step(image="dual-trainer")
def evaluate_cloud(
    store: str,
    run_id: str,
    examples: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    classification: dsl.Output[dsl.ClassificationMetrics],
    view: dsl.Output[dsl.HTML],
    shards: Optional[List[str]] = None,  # noqa: UP006, UP045 - KFP reads no other spelling
) -> None:
    """Measure the SavedModel by its serving signature and judge it against thresholds and baseline."""
    from pathlib import Path

    from components.core.record import open_step
    from components.evaluate_cloud.evaluate import evaluate_cloud_model
    from components.evaluation.classification import log_classification

    with open_step("evaluate_cloud", store=store, run_id=run_id, view=view.path) as record:
        evaluate_cloud_model(
            record,
            examples=Path(examples.path),
            model=Path(model.path),
            settings=record.settings,
            output=Path(evaluation.path),
            shards=len(shards or [""]),
        )
        record.log_metrics(metrics)
        log_classification(classification, Path(evaluation.path))
