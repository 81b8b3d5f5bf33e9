"""The price table, and which machine of it something needs. A price that is not in the table is not known, and is never guessed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.core.errors import UsageError
from components.cost.amount import Range

Service = Literal["compute", "vertex"]
ANY = "any"
"""An accelerator of whatever model."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Entry):
    """Where a price is from, and the day on which it was seen there."""

    url: str = Field(pattern=r"^https?://")
    seen: date
    note: str = ""


class Spot(_Entry):
    """What Spot machines cost: between the list price and the list price less `largest_discount`."""

    largest_discount: float = Field(ge=0, lt=1)
    source: str


class MachinePrice(_Entry):
    """One machine type of one region."""

    name: str
    service: Service
    region: str
    cpus: float = Field(gt=0)
    memory_gib: float = Field(gt=0)
    per_hour: float = Field(ge=0, allow_inf_nan=False)
    holds: dict[str, int] = {}
    """Accelerators that are part of the machine and of its price."""
    takes: list[str] = []
    """Accelerators that can be attached, at their own price."""
    source: str


class AcceleratorPrice(_Entry):
    """One accelerator of one region."""

    name: str
    service: Service
    region: str
    per_hour: float = Field(ge=0, allow_inf_nan=False)
    source: str


class Fee(_Entry):
    """What each run costs beside its machines."""

    name: str
    service: Service
    per_run: float = Field(ge=0, allow_inf_nan=False)
    source: str


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What a step asks for, or what it was given."""

    cpus: float
    memory_gib: float
    accelerator: str = ""
    """A model as the table, Vertex, Compute Engine or the driver writes it; `any`; or empty for none."""
    count: int = 0

    def __str__(self) -> str:
        """In words."""
        accelerators = f", {self.count} x {self.accelerator}" if self.accelerator and self.count else ""
        return f"{self.cpus:g} cores, {round(self.memory_gib, 1):g} GiB{accelerators}"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the hours are paid."""

    service: Service = "compute"
    region: str = "us-central1"
    spot: bool = False


@dataclass(frozen=True, kw_only=True)
class Offer:
    """The cheapest priced machine that is large enough, or why there is none."""

    machine: str
    per_hour: Range | None
    """None: the price is not known."""
    why: str = ""
    sources: tuple[str, ...] = ()


class Prices(_Entry):
    """The content of a price table."""

    schema_: Literal["dual.prices/v1"] = Field(alias="schema")
    currency: str = Field(min_length=1, max_length=8)
    stale_after_days: int = Field(180, ge=1)
    sources: dict[str, Source]
    spot: Spot | None = None
    machines: list[MachinePrice] = []
    accelerators: list[AcceleratorPrice] = []
    fees: list[Fee] = []

    @model_validator(mode="after")
    def _sources_exist(self) -> "Prices":
        priced = [*self.machines, *self.accelerators, *self.fees, *([self.spot] if self.spot else [])]
        missing = {entry.source for entry in priced} - set(self.sources)
        if missing:
            raise ValueError(f"no source is called {', '.join(sorted(missing))}")
        return self

    def offer(self, hardware: Hardware, place: Place) -> Offer:
        """The cheapest machine of `place` with at least that hardware, and its price by the hour."""
        found = sorted(self._offers(hardware, place), key=lambda offer: offer[0])
        if not found:
            why = f"no machine with {hardware} has a price for {place.service} in {place.region}"
            return Offer(machine="", per_hour=None, why=why)
        return self._at(*found[0], place)

    def _at(self, price: float, name: str, sources: tuple[str, ...], place: Place) -> Offer:
        if not place.spot:
            return Offer(machine=name, per_hour=Range.exactly(price), sources=sources)
        if self.spot is None:
            return Offer(machine=name, per_hour=None, why="the table says nothing about Spot prices")
        lowest = price * (1 - self.spot.largest_discount)
        return Offer(machine=f"{name}, Spot", per_hour=Range(lowest, price, price), sources=(*sources, self.spot.source))

    def named(self, name: str, place: Place) -> Offer:
        """The machine of that name in `place`."""
        here = (each for each in self.machines if (each.service, each.region) == (place.service, place.region))
        found = next((each for each in here if each.name == name), None)
        if found is None:
            return Offer(machine=name, per_hour=None, why=f"{name} has no price for {place.service} in {place.region}")
        return self._at(found.per_hour, found.name, (found.source,), place)

    def fee(self, place: Place) -> float:
        """What each run costs in `place` beside its machines."""
        return sum(fee.per_run for fee in self.fees if fee.service == place.service)

    def fee_sources(self, place: Place) -> tuple[str, ...]:
        """The sources of `fee`."""
        return tuple(fee.source for fee in self.fees if fee.service == place.service)

    def stale(self, used: set[str], today: date) -> list[str]:
        """A sentence for each used source that was seen too long ago."""
        ages = {name: (today - self.sources[name].seen).days for name in sorted(used)}
        return [
            f"prices of '{name}' were seen {age} days ago ({self.sources[name].seen}): check {self.sources[name].url}"
            for name, age in ages.items()
            if age > self.stale_after_days
        ]

    def seen(self, used: set[str]) -> str:
        """When the used prices were seen: a day, or the first and the last."""
        days = sorted({self.sources[name].seen for name in used})
        return "" if not days else f"{days[0]}" if len(days) == 1 else f"{days[0]} to {days[-1]}"

    def _offers(self, hardware: Hardware, place: Place) -> Iterator[tuple[float, str, tuple[str, ...]]]:
        for machine in self.machines:
            same = (machine.service, machine.region) == (place.service, place.region)
            if same and machine.cpus >= hardware.cpus and machine.memory_gib >= hardware.memory_gib:
                yield from self._equipped(machine, hardware)

    def _equipped(self, machine: MachinePrice, hardware: Hardware) -> Iterator[tuple[float, str, tuple[str, ...]]]:
        """The machine with the accelerators asked for, if it can have them."""
        if not hardware.count or not hardware.accelerator:
            # A machine with an accelerator that nobody asked for is never the cheapest, but could be the only one.
            yield machine.per_hour, machine.name, (machine.source,)
            return
        wanted, count = model_name(hardware.accelerator), hardware.count
        if any(held >= count and wanted in (ANY, model_name(name)) for name, held in machine.holds.items()):
            yield machine.per_hour, machine.name, (machine.source,)
        for price in self.accelerators:
            same = (price.service, price.region) == (machine.service, machine.region)
            if same and price.name in machine.takes and wanted in (ANY, model_name(price.name)):
                sources = tuple(dict.fromkeys((machine.source, price.source)))
                yield machine.per_hour + count * price.per_hour, f"{machine.name} + {count} x {price.name}", sources


def model_name(text: str) -> str:
    """`NVIDIA_TESLA_T4`, `nvidia-tesla-t4`, `Tesla T4`, `NVIDIA L4` as one word: `t4`, `l4`."""
    words = re.split(r"[^a-z0-9]+", text.lower())
    return "-".join(word for word in words if word not in ("", "nvidia", "tesla")) or text.lower()


def load_prices(path: Path | None = None) -> Prices:
    """The table in `path`, or the one that comes with the package; `UsageError` names the file and the key that is wrong."""
    import yaml

    where = str(path) if path else "the embedded price table"
    try:
        text = path.read_text() if path else files("components.cost").joinpath("prices.yaml").read_text()
        content: Any = yaml.safe_load(text)
        return Prices.model_validate(content)
    except OSError as error:
        raise UsageError(f"can't be read ({error.strerror})", where=where, fix="Check the path and its permissions") from None
    except yaml.YAMLError as error:
        raise UsageError(f"is not YAML ({' '.join(str(error).split())})", where=where, fix="Correct the file") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the table"
        raise UsageError(f"{key}: {first['msg']}", where=where, fix="Compare it with components/cost/prices.yaml") from None


def used_sources(offers: list[Offer]) -> set[str]:
    """Every source that these offers' prices are from."""
    return set(chain.from_iterable(offer.sources for offer in offers))
