"""Rollouts on a Vertex AI endpoint: a model version for each release, and a traffic split that moves between two deployed models."""
