"""An amount with its range: money or seconds."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """What is likely, and the bounds of what it may be; none is below 0."""

    low: float
    likely: float
    high: float

    @classmethod
    def exactly(cls, amount: float) -> "Range":
        """An amount without a range."""
        return cls(amount, amount, amount)

    def __add__(self, other: "Range") -> "Range":
        return Range(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def __mul__(self, other: "Range") -> "Range":
        return Range(self.low * other.low, self.likely * other.likely, self.high * other.high)

    def scaled(self, factor: float) -> "Range":
        """The product with an exact factor."""
        return self * Range.exactly(factor)

    def as_json(self) -> dict[str, float]:
        """For scripts."""
        return {"low": round(self.low, 6), "likely": round(self.likely, 6), "high": round(self.high, 6)}

    def in_words(self) -> str:
        """`0.0123`, or `0.0123 (0.0011 to 0.0246)`."""
        if self.low == self.high:
            return figure(self.likely)
        return f"{figure(self.likely)} ({figure(self.low)} to {figure(self.high)})"


def figure(amount: float) -> str:
    """An amount for a person: two digits after the point from 1 on, four below it, and of what is smaller still its first two digits."""
    if amount >= 1 or amount <= 0:
        return f"{amount:.2f}"
    return f"{amount:.{max(4, 1 - math.floor(math.log10(amount)))}f}"


def total(amounts: list[Range]) -> Range:
    """Their sum."""
    return sum(amounts, Range.exactly(0.0))
