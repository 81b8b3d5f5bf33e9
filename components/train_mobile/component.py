"""train_mobile: examples become the mobile model."""

from kfp import dsl

from components.core.step import step


@step(image="dual-trainer")
def train_mobile(
    store: str,
    run_id: str,
    examples: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    view: dsl.Output[dsl.HTML],
) -> None:
    """Train the mobile model on the examples."""
    from pathlib import Path

    from components.core.record import open_step
    from components.train_mobile.train import train_mobile_model

    with open_step("train_mobile", store=store, run_id=run_id, view=view.path) as record:
        train_mobile_model(record, examples=Path(examples.path), settings=record.settings, output=Path(model.path))
        record.log_metrics(metrics)
