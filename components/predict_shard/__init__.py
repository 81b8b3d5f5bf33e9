"""predict_shard: a release answers for one part of the images."""
