"""Clients of what was shipped."""
