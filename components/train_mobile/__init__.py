"""train_mobile: the mobile model."""
