"""Everything at serving time: the local TF-Serving-compatible server and the rollout of the cloud model."""
