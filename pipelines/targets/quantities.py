"""Kubernetes' quantities as numbers, to compare a request with its limit."""

from decimal import Decimal

_SUFFIXES = {"": Decimal(1), "m": Decimal("0.001")} | {
    f"{letter}{binary}": Decimal(1024 if binary else 1000) ** (power + 1) for power, letter in enumerate("KMGTPE") for binary in ("", "i")
}


def quantity(text: str) -> Decimal:
    """`500m` → 0.5, `2G` → 2·10⁹, `1Gi` → 2³⁰; the text must have one of these forms."""
    number = text.rstrip("mKMGTPEi")
    return Decimal(number) * _SUFFIXES[text[len(number) :]]
