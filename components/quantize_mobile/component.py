"""quantize_mobile: the trained mobile network becomes a full int8 .tflite."""

from kfp import dsl

from components.core.step import step


@step(image="dual-trainer")
def quantize_mobile(
    store: str,
    run_id: str,
    examples: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    quantized: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    view: dsl.Output[dsl.HTML],
) -> None:
    """Make the int8 model by the cheapest method that keeps the float model's accuracy, and say what each method lost."""
    from pathlib import Path

    from components.core.record import open_step
    from components.quantize_mobile.quantize import quantize_mobile_model

    with open_step("quantize_mobile", store=store, run_id=run_id, view=view.path) as record:
        paths = {"examples": Path(examples.path), "model": Path(model.path), "output": Path(quantized.path)}
        quantize_mobile_model(record, settings=record.settings, **paths)
        record.log_metrics(metrics)
