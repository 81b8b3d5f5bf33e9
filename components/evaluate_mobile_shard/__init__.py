"""evaluate_mobile_shard: the exported mobile model is asked about a part of the split."""
