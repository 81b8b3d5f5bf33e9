"""What a run cost: each step's seconds on the machine that it was given, at that machine's price."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from components.core.machine import Machine
from components.core.record import Record
from components.cost.amount import Range, total
from components.cost.prices import Hardware, Offer, Place, Prices, used_sources

_HOUR = 3600.0


@dataclass(frozen=True)
class StepCost:
    """One step: on what, for how long, for how much."""

    step: str
    machine: str
    seconds: Range
    cost: Range | None
    """None: not known, and `why` says why."""
    why: str = ""
    cached: bool = False


@dataclass(frozen=True)
class RunCost:
    """All steps of a run, or of a run to come."""

    steps: list[StepCost]
    fee: float
    """What the run costs beside its machines."""
    currency: str
    region: str
    seen: str
    """When the prices were seen."""
    warnings: list[str] = field(default_factory=list)

    @property
    def total(self) -> Range:
        """The sum of what is known."""
        return total([step.cost for step in self.steps if step.cost]) + Range.exactly(self.fee)

    @property
    def unknown(self) -> list[str]:
        """Steps whose cost is not known: the total is a lower bound then."""
        return [step.step for step in self.steps if step.cost is None]


def hardware_of(machine: Machine) -> Hardware:
    """What a step was given, as something to find a price for; of several models the first counts, as machines have one."""
    name, count = next(iter(machine.accelerators.items()), ("", 0))
    return Hardware(cpus=machine.cpus, memory_gib=machine.memory_gib, accelerator=name, count=count)


def cost_of_run(records: Mapping[str, Record], order: tuple[str, ...], prices: Prices, place: Place, own: float | None = None) -> RunCost:
    """The cost of the steps in `records`, in `order`. `own` is the price of an hour of every step, instead of the table's.

    A step is priced as if it had a machine to itself: steps that share a node cost less.
    """
    found = [records[step] for step in order if step in records]
    offers = {record.step: _offer(record, prices, place, own) for record in found}
    steps = [_step_cost(record, offers[record.step]) for record in found]
    return assemble(steps, list(offers.values()), prices, place, fee=own is None)


def assemble(steps: list[StepCost], offers: list[Offer], prices: Prices, place: Place, *, fee: bool = True) -> RunCost:
    """Steps with the fee, the dates of their prices, and what is to be said of them."""
    used = used_sources(offers) | set(prices.fee_sources(place) if fee else ())
    return RunCost(
        steps=steps,
        fee=prices.fee(place) if fee else 0.0,
        currency=prices.currency,
        region=place.region,
        seen=prices.seen(used),
        warnings=prices.stale(used, date.today()),
    )


def _offer(record: Record, prices: Prices, place: Place, own: float | None) -> Offer:
    if own is not None:
        return Offer(machine="own price", per_hour=Range.exactly(own))
    if workers := record.data.get("workers_elsewhere"):
        # What the step itself ran on is the smallest part of it.
        return Offer(machine="", per_hour=None, why=f"{workers} workers trained on machines of their own, which no record tells of")
    if record.machine is None:
        return Offer(machine="", per_hour=None, why="its record does not say on what machine it ran")
    return prices.offer(hardware_of(record.machine), place)


def _step_cost(record: Record, offer: Offer) -> StepCost:
    seconds = Range.exactly(record.seconds)
    cost = offer.per_hour.scaled(record.seconds / _HOUR) if offer.per_hour else None
    return StepCost(record.step, offer.machine, seconds, cost, offer.why, record.cached)
