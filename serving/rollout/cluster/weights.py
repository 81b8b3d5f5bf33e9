"""How many pods make a weight, and which weight they make: arithmetic in whole pods."""

import math


def pods_for(weight: int, stable: int) -> int:
    """Candidate pods beside `stable` ones so that a Service which spreads evenly gives them at least `weight` percent.

    c / (N + c) ≥ w / 100  ⇔  c ≥ N · w / (100 - w); at least 1.
    """
    return max(1, math.ceil(stable * weight / (100 - weight)))


def routed_pods_for(weight: int, stable: int) -> int:
    """Candidate pods that carry `weight` percent of what `stable` pods carry, where the weight itself is set exactly; at least 1."""
    return max(1, math.ceil(stable * weight / 100))


def share(candidate: int, stable: int) -> float:
    """The percentage of an evenly spread traffic that `candidate` ready pods get beside `stable` ready ones."""
    return 100.0 * candidate / (candidate + stable) if candidate else 0.0
