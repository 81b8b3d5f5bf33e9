"""Costs as tables: for the report, the terminal and scripts."""

from typing import Any

from components.cost.amount import figure
from components.cost.prices import MachinePrice, Prices
from components.cost.run import RunCost, StepCost
from components.cost.savings import UTILISATION, Savings

COLUMNS = ["step", "on", "seconds", "cost"]


def rows(cost: RunCost) -> list[list[str]]:
    """One row per step, then the fee where there is one, and the sum."""
    found = [[step.step, step.machine or "–", seconds(step), amount(step)] for step in cost.steps]
    if cost.fee:
        found.append(["fee of the run", "", "", figure(cost.fee)])
    return [*found, ["sum", "", "", in_total(cost)]]


def seconds(step: StepCost) -> str:
    """The step's time, with its range; where its result was reused, that."""
    if step.seconds.low == step.seconds.high:
        return f"{step.seconds.likely:.1f}" + (" (cached)" if step.cached else "")
    return f"{step.seconds.likely:.1f} ({step.seconds.low:.1f} to {step.seconds.high:.1f})"


def amount(step: StepCost) -> str:
    """The step's cost, or that it is not known."""
    return step.cost.in_words() if step.cost else "not known"


def in_total(cost: RunCost) -> str:
    """The sum with its currency; with an unknown part it is a lower bound."""
    least = "at least " if cost.unknown else ""
    return f"{least}{cost.total.in_words()} {cost.currency}"


def remarks(cost: RunCost) -> list[str]:
    """What one has to know of the figures: prices and dates, what is not known, what is old."""
    found = [f"List prices of {cost.region}, seen {cost.seen}; each step as if it had its machine to itself."] if cost.seen else []
    found += [f"{step.step}: not known, because {step.why}" for step in cost.steps if step.cost is None]
    return [*found, *cost.warnings]


def savings_in_words(saved: Savings, currency: str) -> str:
    """One sentence about 1,000 predictions."""
    share = f"Devices answer {1 - saved.cloud_share:.1%} of the predictions alone"
    if saved.all_cloud is None or saved.layered is None or saved.saved is None:
        return f"{share}. What that saves is not known: {saved.why}."
    how = f"{saved.machine}, {saved.per_second:.0f} a second, {saved.measured}; servers {UTILISATION:.0%} busy"
    costs = f"1,000 predictions cost {saved.layered.in_words()} {currency} instead of {saved.all_cloud.in_words()}"
    return f"{share}: {costs}, {saved.saved.in_words()} saved ({how})."


def price_rows(prices: Prices) -> list[list[str]]:
    """The price table, a row per price."""
    machines = [(each, _equipment(each)) for each in prices.machines]
    found = [
        *((each.service, each.region, what, each.per_hour, each.source) for each, what in machines),
        *((each.service, each.region, f"{each.name}, attached", each.per_hour, each.source) for each in prices.accelerators),
    ]
    rows = [
        [service, region, what, f"{price:.4f}", str(prices.sources[source].seen), prices.sources[source].url]
        for service, region, what, price, source in found
    ]
    fees = [
        [fee.service, "", fee.name, f"{fee.per_run:.4f} a run", str(prices.sources[fee.source].seen), prices.sources[fee.source].url]
        for fee in prices.fees
    ]
    return [*rows, *fees]


def _equipment(machine: MachinePrice) -> str:
    held = "".join(f", {count} x {name}" for name, count in machine.holds.items())
    return f"{machine.name} ({machine.cpus:g} cores, {machine.memory_gib:g} GiB{held})"


def as_json_value(cost: RunCost, saved: Savings | None) -> dict[str, Any]:
    """Everything, for scripts; null where it is not known."""
    return {
        "currency": cost.currency,
        "region": cost.region,
        "prices_seen": cost.seen,
        "steps": [_step(step) for step in cost.steps],
        "fee": cost.fee,
        "total": cost.total.as_json(),
        "unknown": cost.unknown,
        "warnings": cost.warnings,
        "per_1000_predictions": _savings(saved) if saved else None,
    }


def _step(step: StepCost) -> dict[str, Any]:
    cost = step.cost.as_json() if step.cost else None
    return {
        "step": step.step,
        "machine": step.machine,
        "seconds": step.seconds.as_json(),
        "cached": step.cached,
        "cost": cost,
        "why": step.why,
    }


def _savings(saved: Savings) -> dict[str, Any]:
    amounts = {"all_cloud": saved.all_cloud, "layered": saved.layered, "saved": saved.saved}
    return {
        "cloud_share": saved.cloud_share,
        **{name: found.as_json() if found else None for name, found in amounts.items()},
        "machine": saved.machine,
        "per_second": saved.per_second,
        "measured": saved.measured,
        "utilisation": UTILISATION,
        "why": saved.why,
    }
