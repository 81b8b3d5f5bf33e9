"""predict_shard: a release answers for one part of the images."""

from kfp import dsl

from components.core.step import step


@step(image="dual-trainer")
def predict_shard(
    data: str, store: str, run_id: str, release: str, shard: str, view: dsl.Output[dsl.HTML], model: str = "layered", batch_size: int = 32
) -> None:
    """Leave in the store what the release says of one shard of the images."""
    from components.core.record import open_step
    from components.core.shards import parse_shard
    from components.predict.predict import answer_shard, parse_asked

    part, asked = parse_shard(shard), parse_asked(data, release, model, batch_size)
    with open_step(part.title("predict_shard"), store=store, run_id=run_id, view=view.path) as record:
        answer_shard(record, asked, part)
