"""The cloud rollout: which release servers should serve, and how they get from one to the next without losing a request."""
