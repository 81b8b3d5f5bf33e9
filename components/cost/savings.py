"""What the layered policy saves: the predictions that the phone answers alone never reach the cloud."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.core.record import Record
from components.cost.amount import Range
from components.cost.prices import Offer, Place, Prices
from components.cost.run import hardware_of

UTILISATION = 0.7
"""How busy server pods are on average: what the autoscaler of manifests/components/hpa aims at."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """What is known of the server beside the run's records."""

    per_second: float = 0.0
    """Predictions that it answers in a second when it is always busy (of a load test, say); 0: as validate_infra's latency lets expect."""
    machine: str = ""
    """Its machine type in the price table; empty: what validate_infra ran on."""
    per_hour: float | None = None
    """Its price by the hour, instead of the table's."""


@dataclass(frozen=True, kw_only=True)
class Savings:
    """Per 1,000 predictions of devices; amounts are None where they are not known, and `why` says why."""

    cloud_share: float
    """Share of the predictions for which a device asks the cloud."""
    all_cloud: Range | None = None
    """If the cloud answered every one."""
    layered: Range | None = None
    saved: Range | None = None
    machine: str = ""
    per_second: float = 0.0
    measured: str = ""
    """Where that number is from."""
    why: str = ""
    sources: tuple[str, ...] = ()


def savings(records: Mapping[str, Record], prices: Prices, place: Place, server: Server) -> Savings | None:
    """What 1,000 predictions cost with and without the phone; None in a run without a policy.

    One server's price by the hour over what it answers in an hour at `UTILISATION`. From a latency only one client's throughput is known,
    which is less than a server can do: then the amounts are upper bounds.
    """
    share = cloud_share(records)
    if share is None:
        return None
    infra = records.get("validate_infra")
    rate, measured = (server.per_second, "as given") if server.per_second else _measured(infra)
    if not rate:
        why = "no throughput was measured: validate_infra left no cloud_p50_ms; give --per-second"
        return Savings(cloud_share=share, why=why)
    offer = _offer(infra, prices, place, server)
    if offer.per_hour is None:
        return Savings(cloud_share=share, per_second=rate, measured=measured, why=offer.why)
    whole = offer.per_hour.scaled(1000 / (rate * UTILISATION * 3600))
    return Savings(
        cloud_share=share,
        all_cloud=whole,
        layered=whole.scaled(share),
        saved=whole.scaled(1 - share),
        machine=offer.machine,
        per_second=rate,
        measured=measured,
        sources=offer.sources,
    )


def cloud_share(records: Mapping[str, Record]) -> float | None:
    """The share of cloud calls to expect on new images, else the one on the split that chose the policy; None without a policy."""
    metrics: Mapping[str, Any] = records["compare_pair"].metrics if "compare_pair" in records else {}
    return metrics.get("expected_cloud_share", metrics.get("cloud_share"))


def _measured(infra: Record | None) -> tuple[float, str]:
    latency = infra.metrics.get("cloud_p50_ms", 0.0) if infra else 0.0
    return (1000 / latency, f"one client, median of {latency:.1f} ms in validate_infra") if latency > 0 else (0.0, "")


def _offer(infra: Record | None, prices: Prices, place: Place, server: Server) -> Offer:
    """The machine that the throughput was measured on."""
    if server.per_hour is not None:
        return Offer(machine="own price", per_hour=Range.exactly(server.per_hour))
    if server.machine:
        return prices.named(server.machine, place)
    if infra is None or infra.machine is None:
        return Offer(machine="", per_hour=None, why="on what machine the latency was measured is not recorded; give --server-machine")
    return prices.offer(hardware_of(infra.machine), place)
