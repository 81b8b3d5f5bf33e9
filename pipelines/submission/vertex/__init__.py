"""Vertex AI Pipelines by its documented REST (v1): who asks, what is sent, what comes back.

Not run against Google's service; docs/vertex.md says what that leaves open.
"""
