"""Argo Workflows below and beside Kubeflow Pipelines: schedules without its scheduler, and a run's Workflow node by node."""
