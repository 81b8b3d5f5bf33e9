"""A self-hosted Kubeflow Pipelines 2.x: how it is reached, as whom, and what is asked of it."""
