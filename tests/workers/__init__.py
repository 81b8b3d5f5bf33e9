"""Trainings by several workers."""
