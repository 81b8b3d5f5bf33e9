"""evaluate_cloud_shard: the exported cloud model is asked about a part of the split."""
