"""plan_predictions: which release answers, and how many pods the images are worth."""

from typing import List, NamedTuple  # noqa: UP035

from kfp import dsl

from components.core.step import step


@step(image="dual-trainer")
def plan_predictions(
    data: str, store: str, run_id: str, view: dsl.Output[dsl.HTML], release: str = "", shard_images: int = 20_000, most_shards: int = 64
) -> NamedTuple("Plan", [("shards", List[str]), ("release", str)]):  # type: ignore[valid-type]  # noqa: UP006
    """List the images, pin the release, share the work out."""
    from components.core.record import open_step
    from components.core.shards import ShardSettings, all_shards
    from components.predict.predict import plan_predictions as plan

    with open_step("plan_predictions", store=store, run_id=run_id, view=view.path) as record:
        sharding = ShardSettings(images=shard_images, most=most_shards)
        count, chosen = plan(record, data=data, release=release, sharding=sharding)
    # By the order of the fields; KFP asks for a tuple and not for its class.
    return [str(shard) for shard in all_shards(count)], chosen  # pyright: ignore[reportReturnType]
