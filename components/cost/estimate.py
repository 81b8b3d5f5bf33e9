"""What a run will cost: the times of the last runs' steps, on the machines that the steps will ask for."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from components.core.record import Record
from components.cost.amount import Range
from components.cost.prices import Hardware, Offer, Place, Prices
from components.cost.run import RunCost, StepCost, assemble

_HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a step asks for."""

    hardware: Hardware
    retries: int = 0
    """How often it may be started again."""
    spot: bool = False


def step_times(runs: Sequence[Mapping[str, Record]]) -> dict[str, list[float]]:
    """Step → its seconds in every run in which it succeeded and was not taken from the cache."""
    times: dict[str, list[float]] = {}
    for records in runs:
        for step, record in records.items():
            if record.status == "succeeded" and not record.cached:
                times.setdefault(step, []).append(record.seconds)
    return times


def estimate(times: Mapping[str, Sequence[float]], asked: Mapping[str, Asked], prices: Prices, place: Place) -> RunCost:
    """The cost of a run whose steps take their median time; the range is from the fastest to the slowest time that they took.

    A step that is started again could run to its end before it fails, so the upper bound counts every retry in full. A step that never ran
    has no time, so its cost is not known.
    """
    offers = {step: prices.offer(each.hardware, replace(place, spot=place.spot or each.spot)) for step, each in asked.items()}
    steps = [_estimated(step, times.get(step, ()), offers[step], each.retries) for step, each in asked.items()]
    return assemble(steps, [offers[step.step] for step in steps if step.cost], prices, place)


def _estimated(step: str, seconds: Sequence[float], offer: Offer, retries: int) -> StepCost:
    if not seconds:
        return StepCost(step, offer.machine, Range.exactly(0.0), None, "no run in this store has its time")
    taken = Range(min(seconds), statistics.median(seconds), max(seconds) * (1 + retries))
    cost = (offer.per_hour * taken).scaled(1 / _HOUR) if offer.per_hour else None
    return StepCost(step, offer.machine, taken, cost, offer.why)
