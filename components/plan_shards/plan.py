"""How many shards the data is worth, found out without reading an image."""

from components.core.cache import has_result
from components.core.settings import section
from components.core.shards import ShardSettings, shard_count
from components.core.stores import Store
from components.ingest.pieces import SOURCE, Asked
from components.ingest.scan import Say
from components.ingest.settings import IngestSettings
from components.ingest.source import open_source


def plan_shards(store: Store, *, data: str, settings: str, say: Say) -> tuple[int, int]:
    """How many shards ingest and each evaluation are worth; 1 where that can't be known before, or where the result is there already.

    Raises what opening the data raises.
    """
    chosen, sharding = section(settings, "ingest", IngestSettings), section(settings, "sharding", ShardSettings)
    with open_source(data, chosen, say) as source:
        total, asked = source.total, Asked(data, chosen, source.fingerprint)
    evaluation = shard_count(round(total * max(chosen.test_fraction, chosen.validation_fraction)), sharding)
    if asked.fingerprint is None or not total:
        say(f"one shard: {data} can't tell {'whether it changed' if asked.fingerprint is None else 'how many images it holds'}")
        return 1, evaluation
    if has_result(store, "ingest", asked.inputs(), SOURCE):
        say("one shard of ingest: the data is unchanged, its examples are in the store")
        return 1, evaluation
    count = shard_count(total, sharding)
    say(f"{total:,} images: {count} shards of ingest, {evaluation} of each evaluation")
    return count, evaluation
