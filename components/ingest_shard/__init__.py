"""ingest_shard: one part of the data is read, judged and decoded for ingest."""
