"""Slices: subsets of a split that get metrics of their own, from the examples' columns and from the images themselves."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.evaluation.metrics import Floats

_MIN_EXAMPLES = 30
"""Terciles of fewer examples would say nothing."""
_THUMBNAIL = (64, 64)


@dataclass(frozen=True)
class Look:
    """What an image is like: mean luma in [0, 255] and its number of pixels."""

    brightness: float
    pixels: int


def look_at(image: bytes) -> Look:
    """Measure an encoded image; JPEGs are decoded at an eighth of their size, which is enough for a mean and cheap."""
    from PIL import Image

    with Image.open(io.BytesIO(image)) as opened:
        width, height = opened.size
        opened.draft("L", _THUMBNAIL)
        grey = opened.convert("L").resize(_THUMBNAIL, Image.Resampling.BOX)
        return Look(float(np.asarray(grey).mean()), width * height)


def automatic_columns(looks: Sequence[Look]) -> dict[str, list[str]]:
    """Column → value per example: `brightness` (dark, medium, bright) and `size` (small, medium, large), by terciles of the split.

    A column whose terciles coincide, as when all images have one size, is left out; so are both for fewer than 30 examples.
    """
    if len(looks) < _MIN_EXAMPLES:
        return {}
    measured = {
        "brightness": (("dark", "medium", "bright"), [look.brightness for look in looks]),
        "size": (("small", "medium", "large"), [float(look.pixels) for look in looks]),
    }
    columns = {column: _terciles(np.array(values), names) for column, (names, values) in measured.items()}
    return {column: values for column, values in columns.items() if values}


def slice_masks(columns: Mapping[str, Sequence[str]]) -> dict[str, NDArray[np.bool_]]:
    """`column=value` → which examples [N] belong to it, sorted by name. An empty value means that the column doesn't apply."""
    masks = {}
    for column in sorted(columns):
        values = np.array(columns[column], dtype=np.str_)
        masks |= {f"{column}={value}": values == value for value in sorted(set(values.tolist())) if value}
    return masks


def example_columns(slices: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """Column → value per example, from the examples' own slices; empty where an example has no value."""
    names = sorted({name for row in slices for name in row})
    return {name: [str(row.get(name, "")) for row in slices] for name in names}


def _terciles(values: Floats, names: tuple[str, str, str]) -> list[str]:
    low, high = np.quantile(values, (1 / 3, 2 / 3))
    if not values.min() <= low < high < values.max():
        return []
    return [names[int(value > low) + int(value > high)] for value in values]
