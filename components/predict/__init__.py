"""predict: a release answers for every image of a folder or a bucket."""
