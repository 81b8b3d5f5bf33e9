"""train_cloud: the cloud model."""
