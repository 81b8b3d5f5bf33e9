"""The rollout on Kubernetes: a state machine that any process may run, die in, and run again (docs/decisions/0005-rollout-objects.md)."""
