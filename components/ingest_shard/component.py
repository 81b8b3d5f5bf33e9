"""ingest_shard: one part of the data is read, judged and decoded for ingest."""

from kfp import dsl

from components.core.step import step


@step(image="dual-trainer")
def ingest_shard(data: str, shard: str, store: str, run_id: str, view: dsl.Output[dsl.HTML]) -> None:
    """Leave the images of one shard in the store, read, judged and decoded."""
    from components.core.record import open_step
    from components.core.shards import parse_shard
    from components.ingest.pieces import scan_shard

    part = parse_shard(shard)
    with open_step(part.title("ingest_shard"), store=store, run_id=run_id, view=view.path) as record:
        scan_shard(record, part, data=data, settings=record.settings)
