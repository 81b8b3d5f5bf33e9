"""train_cloud: examples become the cloud model."""

from kfp import dsl

from components.core.step import step


@step(image="dual-trainer")
def train_cloud(
    store: str,
    run_id: str,
    examples: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    view: dsl.Output[dsl.HTML],
) -> None:
    """Train the cloud model on the examples."""
    from pathlib import Path

    from components.core.record import open_step
    from components.train_cloud.train import train_cloud_model

    with open_step("train_cloud", store=store, run_id=run_id, view=view.path) as record:
        train_cloud_model(record, examples=Path(examples.path), settings=record.settings, output=Path(model.path))
        record.log_metrics(metrics)
