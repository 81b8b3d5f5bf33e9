"""How many shards the data is worth, found out without reading an image."""

from components.core.cache import has_result
from components.core.record import StepRecord
from components.core.settings import section
from components.core.shards import ShardSettings, shard_count
from components.ingest.pieces import SOURCE, asked
from components.ingest.settings import IngestSettings
from components.ingest.source import open_source


def plan_shards(record: StepRecord, *, data: str) -> tuple[int, int]:
    """How many shards ingest and each evaluation are worth; 1 where that can't be known before, or where the result is there already.

    Raises what opening the data raises.
    """
    chosen, sharding = section(record.settings, "ingest", IngestSettings), section(record.settings, "sharding", ShardSettings)
    with open_source(data, chosen, record.say) as source:
        total, what = source.total, asked(source, record.run_id, data, chosen)
    evaluation = shard_count(round(total * max(chosen.test_fraction, chosen.validation_fraction)), sharding)
    if what.listing is None or not total:
        record.note(f"one shard: only reading all of {data} tells how many images it holds")
        return 1, 1
    if what.fingerprint is not None and has_result(record.store, "ingest", what.inputs(), SOURCE):
        record.note("one shard of ingest: the data is unchanged, its examples are in the store")
        return 1, evaluation
    count = shard_count(total, sharding)
    record.note(f"{total:,} images: {count} shards of ingest, {evaluation} of each evaluation")
    return count, evaluation
