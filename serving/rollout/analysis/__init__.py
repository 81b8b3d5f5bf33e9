"""Whether a candidate may take more traffic: measurements of its pods beside the stable ones, and Argo Rollouts' verdict rules.

Knows pods by address only, and nothing of Kubernetes: who decides what to do with a verdict is the rollout's state machine.
"""
