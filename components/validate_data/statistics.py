"""The numbers of a data set, ready for JSON and tables."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.core.examples import SPLITS, Examples
from components.validate_data.measure import STATISTICS, UNITS
from components.validate_data.reference import BINS
from components.validate_data.scan import Scan, slice_values

_QUANTILES = {"minimum": 0, "low": 5, "median": 50, "high": 95, "maximum": 100}
"""Names in statistics.json and the percentiles that they are."""


def statistics(scan: Scan, manifest: Examples) -> dict[str, Any]:
    """The content of statistics.json, schema "dual.statistics/v1".

    Counts per split and class, per slice and per slice and split; of each statistic its mean, standard deviation, quantiles and
    histogram per split. Everything is plain Python.
    """
    present = [split for split in SPLITS if len(scan.rows(split))]
    return {
        "schema": "dual.statistics/v1",
        "examples": manifest.digest,
        "images": len(scan),
        "unreadable": [broken._asdict() for broken in scan.broken],
        "labels": scan.labels,
        "splits": {split: _split_counts(scan, scan.rows(split)) for split in SPLITS},
        "slices": slice_values(scan.slices),
        "slices_per_split": {split: slice_values(scan.slices[row] for row in scan.rows(split)) for split in present},
        "distributions": {
            name: {"unit": UNITS[name], **{split: _distribution(scan.statistics[scan.rows(split), column]) for split in present}}
            for column, name in enumerate(STATISTICS)
        },
    }


def _split_counts(scan: Scan, rows: NDArray[np.intp]) -> dict[str, Any]:
    return {"images": len(rows), "per_class": dict(zip(scan.labels, scan.label_counts(rows).tolist(), strict=True))}


def _distribution(column: NDArray[np.float32]) -> dict[str, Any]:
    counts, edges = np.histogram(column, BINS)
    quantiles = {name: float(np.percentile(column, q)) for name, q in _QUANTILES.items()}
    shape = {"histogram": {"counts": counts.tolist(), "edges": edges.tolist()}}
    return {"mean": float(column.mean()), "deviation": float(column.std()), **quantiles, **shape}


def class_rows(scan: Scan) -> list[list[str | float | int | None]]:
    """Rows of the table class × split, with a total."""
    counts = [scan.label_counts(scan.rows(split)) for split in SPLITS]
    rows = [[label, *(int(c[i]) for c in counts), int(sum(c[i] for c in counts))] for i, label in enumerate(scan.labels)]
    sums = [int(c.sum()) for c in counts]
    return [*rows, ["all", *sums, sum(sums)]]


def slice_rows(scan: Scan) -> list[list[str | float | int | None]]:
    """Rows of the table slice × split."""
    per_split = [slice_values(scan.slices[row] for row in scan.rows(split)) for split in SPLITS]
    everything = slice_values(scan.slices)
    return [
        [f"{column}={value}", *(counts.get(column, {}).get(value, 0) for counts in per_split), total]
        for column, values in everything.items()
        for value, total in values.items()
    ]


def distribution_rows(facts: dict[str, Any]) -> list[list[str | float | int | None]]:
    """Rows of the table statistic × (5th percentile, median, 95th percentile of each split), from `statistics`."""
    return [[name, entry["unit"], *(_three(entry.get(split)) for split in SPLITS)] for name, entry in facts["distributions"].items()]


def _three(entry: dict[str, float] | None) -> str:
    return f"{entry['low']:.3g} · {entry['median']:.3g} · {entry['high']:.3g}" if entry else ""
