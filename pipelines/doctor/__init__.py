"""dual doctor: what a run or a rollout would stumble over, found beforehand; each finding with the command that mends it."""
