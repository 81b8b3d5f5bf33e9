"""Conformance of the local server with TF Serving, and of what is built on it."""
