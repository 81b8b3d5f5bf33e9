"""evaluate_mobile_shard: the exported mobile model is asked about a part of the split."""

from kfp import dsl

from components.core.step import step


@step(image="dual-trainer")
def evaluate_mobile_shard(
    shard: str,
    store: str,
    run_id: str,
    examples: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    view: dsl.Output[dsl.HTML],
) -> None:
    """Leave in the store what the .tflite answers to one shard of the examples."""
    from pathlib import Path

    from components.core.record import open_step
    from components.core.shards import parse_shard
    from components.evaluate_mobile.evaluate import ask_mobile_shard

    part = parse_shard(shard)
    with open_step(part.title("evaluate_mobile_shard"), store=store, run_id=run_id, view=view.path) as record:
        ask_mobile_shard(record, part, examples=Path(examples.path), model=Path(model.path), settings=record.settings)
