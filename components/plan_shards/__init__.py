"""plan_shards: how many pods a run of this size is worth."""
