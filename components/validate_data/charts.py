"""Charts of the data, drawn with matplotlib's object-oriented interface (no display, no global state)."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from components.core.examples import SPLITS
from components.validate_data.compare import Compared
from components.validate_data.measure import STATISTICS, UNITS, Floats
from components.validate_data.reference import BINS
from components.validate_data.scan import Scan

COLOURS = {"train": "#4477aa", "validation": "#ddaa33", "test": "#228833"}
"""Colours that the colour-blind can tell apart (Paul Tol's bright and high-contrast schemes)."""
_REFERENCE, _FLAG, _INK = "#bbbbbb", "#bb3333", "#333333"
_MOST_CLASSES = 40
_FEWEST_BINS = 8
_DPI = 110


def class_chart(scan: Scan) -> bytes:
    """Images per class, one bar each with its splits side by side, most first; PNG. Beyond 40 classes the smallest are shown."""
    counts = {split: scan.label_counts(scan.rows(split)) for split in SPLITS}
    total = np.sum(list(counts.values()), axis=0)
    order = np.argsort(-total, kind="stable")[-_MOST_CLASSES:]
    figure = _figure(8.2, 1.2 + 0.32 * len(order))
    axes = figure.add_subplot()
    left = np.zeros(len(order))
    for split in SPLITS:
        axes.barh(np.arange(len(order)), counts[split][order], left=left, color=COLOURS[split], label=split, height=0.7)
        left = left + counts[split][order]
    for place, value in enumerate(left):
        axes.text(value, place, f" {value:.0f}", va="center", fontsize=8, color=_INK)
    axes.set_yticks(np.arange(len(order)), [_short(scan.labels[index]) for index in order])
    axes.invert_yaxis()
    axes.margins(x=0.08)
    _tidy(axes, "", "images")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return _png(figure)


def distribution_chart(scan: Scan) -> bytes:
    """Every statistic's histogram (share of images), training as an area, the other splits as lines; PNG."""
    sides = {split: scan.statistics[scan.rows(split)] for split in SPLITS if len(scan.rows(split))}
    figure, panels = _panels()
    for column, (name, axes) in enumerate(zip(STATISTICS, panels, strict=True)):
        edges = _edges([side[:, column] for side in sides.values()])
        for split, side in sides.items():
            style: dict[str, Any] = {"fill": True, "alpha": 0.3} if split == "train" else {"linewidth": 1.5}
            axes.stairs(_shares(side[:, column], edges), edges, color=COLOURS[split], label=split, **style)
        _tidy(axes, name, UNITS[name])
    _legend(figure, panels[0])
    return _png(figure)


def shift_chart(compared: Compared) -> bytes:
    """Histograms of both samples over each other, with distance and p-value; red titles are beyond their threshold; PNG."""
    figure, panels = _panels()
    for column, (name, axes) in enumerate(zip(STATISTICS, panels, strict=True)):
        base, sample = compared.base.statistics[:, column], compared.sample.statistics[:, column]
        edges = _edges([base, sample])
        axes.stairs(_shares(base, edges), edges, fill=True, color=_REFERENCE, label=_plain(compared.base.name))
        axes.stairs(_shares(sample, edges), edges, color=COLOURS["train"], linewidth=1.8, label=_plain(compared.sample.name))
        _tidy(axes, name, UNITS[name])
        if measure := compared.comparison.measure(name):
            colour = _FLAG if measure.flagged else _INK
            axes.set_title(f"{name}: {measure.distance:.2f} (p {_p(measure.corrected_p_value)})", fontsize=9, color=colour, loc="left")
    _legend(figure, panels[0])
    return _png(figure)


def projection_chart(compared: Compared) -> bytes:
    """Both samples: the domain classifier's held-out score against the first principal component of the descriptors; PNG."""
    base, sample = compared.base.descriptors, compared.sample.descriptors
    component = _project(np.concatenate([base, sample]))[:, 0]
    points = np.stack([compared.scores, component], axis=1)
    figure = _figure(7.2, 5.2)
    axes = figure.add_subplot()
    _scatter(axes, points[: len(base)], _REFERENCE, f"{_plain(compared.base.name)} ({len(base)})")
    _scatter(axes, points[len(base) :], COLOURS["train"], f"{_plain(compared.sample.name)} ({len(sample)})")
    _tidy(axes, "", f"classifier's score on images it was not trained with (right: unlike {_plain(compared.base.name)})")
    axes.set_ylabel("first principal component", fontsize=8)
    if measure := compared.comparison.measure("embedding"):
        text = f"a classifier tells them apart with AUC {measure.distance:.2f} (0.5 = not at all; p {_p(measure.corrected_p_value)})"
        axes.set_title(text, fontsize=9, color=_FLAG if measure.flagged else _INK, loc="left")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return _png(figure)


def split_projection_chart(scan: Scan, rows: Mapping[str, NDArray[np.intp]]) -> bytes:
    """The splits' descriptors on their first two principal components, one colour each; PNG. `rows`: split → examples to draw."""
    points = _project(np.concatenate([scan.descriptors[chosen] for chosen in rows.values()]))
    figure = _figure(7.2, 5.2)
    axes = figure.add_subplot()
    start = 0
    for split, chosen in rows.items():
        _scatter(axes, points[start : start + len(chosen)], COLOURS[split], f"{split} ({len(chosen)})")
        start += len(chosen)
    _tidy(axes, "", "first principal component")
    axes.set_ylabel("second principal component", fontsize=8)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return _png(figure)


def _project(descriptors: Floats) -> NDArray[np.float64]:
    scaled = (descriptors - descriptors.mean(axis=0)) / (descriptors.std(axis=0) + 1e-9)
    _, _, components = np.linalg.svd(scaled.astype(np.float64), full_matrices=False)
    # The sign of a component is arbitrary: fix it, so that a second run draws the same picture.
    signs = np.sign(components[:2, np.abs(components[:2]).argmax(axis=1)].diagonal())
    return scaled @ (components[:2] * signs[:, None]).T


def _scatter(axes: Any, points: NDArray[np.float64], colour: str, label: str) -> None:
    axes.scatter(points[:, 0], points[:, 1], s=12, color=colour, alpha=0.6, linewidths=0, label=label)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _panels() -> tuple[Figure, Sequence[Any]]:
    figure = _figure(10.5, 4.6)
    grid = figure.subplots(2, 4).ravel()
    grid[-1].set_axis_off()
    return figure, list(grid[: len(STATISTICS)])


def _legend(figure: Figure, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower right", bbox_to_anchor=(0.97, 0.14), frameon=False, fontsize=11)


def _edges(columns: Sequence[Floats]) -> NDArray[np.float64]:
    both = np.concatenate(columns)
    low, high = np.percentile(both, [0.5, 99.5])
    bins = int(np.clip(1.3 * np.sqrt(min(map(len, columns))), _FEWEST_BINS, BINS))
    return np.linspace(low, high if high > low else low + 1, bins + 1)


def _shares(column: Floats, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    counts, _ = np.histogram(np.clip(column, edges[0], edges[-1]), edges)
    return counts / max(1, len(column))


def _tidy(axes: Any, title: str, unit: str) -> None:
    axes.set_title(title, fontsize=9, color=_INK, loc="left")
    axes.set_xlabel(unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _p(value: float) -> str:
    return f"{value:.2f}" if value >= 0.01 else f"{value:.0e}".replace("e-0", "e-") if value > 1e-99 else "0"


def _short(label: str) -> str:
    return _plain(label if len(label) <= 24 else f"{label[:23]}…")


def _plain(text: str) -> str:
    # Two dollar signs would make matplotlib parse what is between them as a formula, and fail.
    return text.replace("$", r"\$")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
