"""validate_infra: both models are loaded as in production and asked real and malformed questions."""

from kfp import dsl

from components.core.step import step


@step(image="dual-trainer")
def validate_infra(
    store: str,
    run_id: str,
    examples: dsl.Input[dsl.Dataset],
    cloud_model: dsl.Input[dsl.Model],
    mobile_model: dsl.Input[dsl.Model],
    cloud: dsl.Input[dsl.Artifact],
    mobile: dsl.Input[dsl.Artifact],
    servable: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    view: dsl.Output[dsl.HTML],
) -> None:
    """Serve the SavedModel and the .tflite in processes of their own, compare their answers with the evaluation's, check budgets."""
    from pathlib import Path

    from components.core.record import open_step
    from components.validate_infra.validate import Artifacts, validate_models

    paths = [Path(artifact.path) for artifact in (examples, cloud_model, mobile_model, cloud, mobile)]
    with open_step("validate_infra", store=store, run_id=run_id, view=view.path) as record:
        validate_models(record, Artifacts(*paths), settings=record.settings, output=Path(servable.path))
        record.log_metrics(metrics)
