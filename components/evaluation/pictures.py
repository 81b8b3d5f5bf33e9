"""Drawings of evaluations, with matplotlib's object interface (no global state, no display)."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from components.evaluation.bootstrap import wilson_interval
from components.evaluation.evaluation import CalibrationBin

BLUE, ORANGE, GREY, INK = "#2f6db3", "#d9772b", "#9aa3ad", "#22272e"
_DPI = 130
_MOST_LABELS = 40
"""Up to this many classes, axes name each one."""
_MOST_NUMBERS = 15
"""Up to this many classes, cells show their counts."""
_COLUMNS = 6
_THUMBNAIL = 220
_SIDE, _GAP, _LINE = 1.6, 0.12, 0.15
"""Inches of a contact sheet: a picture's side, the space between pictures, a line of text."""


@dataclass(frozen=True)
class Tile:
    """A picture of a contact sheet, with a line above and lines below it."""

    image: bytes
    above: str
    below: str


def render(figure: Figure, kind: str = "png") -> bytes:
    """The figure's bytes; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    metadata = {"Software": None} if kind == "png" else None
    figure.savefig(buffer, format=kind, dpi=_DPI, metadata=metadata)
    return buffer.getvalue()


def confusion_picture(
    matrix: Sequence[Sequence[int]], labels: Sequence[str], title: str, rows: str = "true class", columns: str = "answer"
) -> bytes:
    """A PNG of a count matrix [C][C], coloured by share of the row."""
    counts = np.array(matrix, dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = min(9.0, 3.2 + 0.55 * len(labels))
    figure = Figure(figsize=(size + 0.9, size), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the row", shrink=0.8)
    _name_classes(axes, labels)
    if len(labels) <= _MOST_NUMBERS:
        _write_counts(axes, counts, shares)
    axes.set(title=title, xlabel=columns, ylabel=rows)
    return render(figure)


def calibration_picture(bins: Sequence[CalibrationBin], error: float, title: str) -> bytes:
    """A PNG of the reliability diagram, with the number of examples per bin below it."""
    figure = Figure(figsize=(5.6, 5.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    used = [b for b in bins if b.examples]
    width = bins[0].high - bins[0].low
    middles = [(b.low + b.high) / 2 for b in used]
    above.plot([0, 1], [0, 1], "--", color=GREY, label="perfectly calibrated")
    above.bar(middles, [b.accuracy for b in used], width=0.92 * width, color=BLUE, alpha=0.75, label="accuracy in the bin")
    above.plot([b.confidence for b in used], [b.accuracy for b in used], "o", color=ORANGE, markersize=5, label="at its mean confidence")
    above.set(title=f"{title} (ECE {error:.3f})", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    above.legend(loc="upper left", frameon=False, fontsize=9)
    below.bar(middles, [b.examples for b in used], width=0.92 * width, color=GREY)
    below.set(xlabel="confidence", ylabel="examples")
    quiet(above, below)
    return render(figure)


def slices_picture(slices: Mapping[str, Mapping[str, float]], overall: float, title: str, most: int = 40) -> bytes:
    """A PNG of the accuracy of each slice with its interval; the `most` worst ones if there are more."""
    shown = sorted(slices.items(), key=lambda item: item[1]["accuracy"])[:most]
    shown.sort(key=lambda item: item[0], reverse=True)
    figure = Figure(figsize=(7.2, 1.2 + 0.32 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    for row, (_, metrics) in enumerate(shown):
        low, high = wilson_interval(metrics["accuracy"] * metrics["examples"], int(metrics["examples"]))
        axes.plot([low, high], [row, row], color=BLUE, linewidth=2, alpha=0.6)
        axes.plot(metrics["accuracy"], row, "o", color=BLUE)
    axes.axvline(overall, color=ORANGE, linewidth=1.2)
    axes.set_yticks(range(len(shown)), [f"{name}  ({metrics['examples']:g})" for name, metrics in shown])
    axes.set(title=title, xlabel="accuracy", xlim=(-0.02, 1.02), ylim=(-0.7, len(shown) - 0.3))
    quiet(axes)
    return render(figure)


def contact_sheet(tiles: Sequence[Tile]) -> bytes:
    """A JPEG of small pictures in rows of six, each with its text."""
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    below = _LINE * (max(tile.below.count("\n") for tile in tiles) + 1.6)
    width, height = columns * (_SIDE + _GAP) + _GAP, rows * (_SIDE + 1.7 * _LINE + below) + _GAP
    figure = Figure(figsize=(width, height))
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        left, top = _GAP + column * (_SIDE + _GAP), height - row * (_SIDE + 1.7 * _LINE + below) - 1.7 * _LINE
        axes = figure.add_axes((left / width, (top - _SIDE) / height, _SIDE / width, _SIDE / height))
        axes.imshow(_square(tile.image))
        axes.set_axis_off()
        axes.set_title(_short(tile.above), fontsize=9, color=INK, pad=3, fontweight="bold")
        text = "\n".join(_short(line) for line in tile.below.split("\n"))
        axes.text(0.5, -0.03, text, transform=axes.transAxes, ha="center", va="top", fontsize=8, color=INK)
    return render(figure, "jpg")


def _square(image: bytes) -> Any:
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(image)) as opened:
        opened.draft("RGB", (_THUMBNAIL, _THUMBNAIL))
        return np.asarray(ImageOps.pad(opened.convert("RGB"), (_THUMBNAIL, _THUMBNAIL), color="white"))


def _short(text: str, most: int = 26) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _name_classes(axes: Any, labels: Sequence[str]) -> None:
    if len(labels) > _MOST_LABELS:
        return
    names = [_short(label, 20) for label in labels]
    crowded = max(map(len, names)) * len(names) > 45
    axes.set_xticks(range(len(labels)), names, rotation=45 if crowded else 0, ha="right" if crowded else "center")
    axes.set_yticks(range(len(labels)), names)


def _write_counts(axes: Any, counts: Any, shares: Any) -> None:
    for row, column in np.ndindex(*counts.shape):
        if counts[row, column]:
            colour = "white" if shares[row, column] > 0.55 else INK
            axes.text(column, row, f"{counts[row, column]:g}", ha="center", va="center", color=colour, fontsize=9)


def quiet(*many: Any) -> None:
    """Take away the frame lines that say nothing."""
    for axes in many:
        axes.spines[["top", "right"]].set_visible(False)
