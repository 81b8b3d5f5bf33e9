"""roll_out_cloud: the release is loaded beside the running version, checked under traffic, and `stable` moves to it."""
