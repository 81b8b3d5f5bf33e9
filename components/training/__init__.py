"""What train_cloud and train_mobile share: reading examples, backbones, features, fitting, checkpoints and export."""
