"""Skew (training split against the others) and drift (training split against the schema's reference)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from components.validate_data.anomalies import Finding
from components.validate_data.measure import STATISTICS
from components.validate_data.reference import Sample, sample_of
from components.validate_data.scan import Scan
from components.validate_data.schema import SCHEMA
from components.validate_data.settings import ValidateDataSettings
from components.validate_data.two_sample import folds_of, holm, kolmogorov_smirnov, label_shift, separate

_DIGEST = 16


class Measure(BaseModel):
    """One distance of a comparison. It counts (`flagged`) if it reaches its threshold and its corrected p-value is small enough."""

    name: str
    distance: float
    threshold: float
    p_value: float
    corrected_p_value: float
    flagged: bool


class Comparison(BaseModel):
    """All distances between two samples: the seven statistics, `labels` and `embedding` (an AUC, 0.5 means no difference)."""

    kind: Literal["drift", "skew"]
    name: str
    base: str
    sample: str
    base_images: int
    sample_images: int
    measures: list[Measure] = []
    skipped: str = ""
    """Why there are no measures."""

    def flagged(self) -> list[Measure]:
        """The measures that count, the largest distance over its threshold first."""
        found = [measure for measure in self.measures if measure.flagged]
        return sorted(found, key=lambda measure: -measure.distance / measure.threshold)

    def measure(self, name: str) -> Measure | None:
        """The measure of that name, if the comparison was made."""
        return next((measure for measure in self.measures if measure.name == name), None)


@dataclass(frozen=True)
class Compared:
    """A comparison with what its pictures need: both samples, which examples the second one is, and how unlike the first each image is."""

    comparison: Comparison
    base: Sample
    sample: Sample
    rows: NDArray[np.intp]
    scores: NDArray[np.float64]
    """Held-out scores of the domain classifier, base first, then sample."""

    def most_unlike(self, count: int) -> list[int]:
        """The examples that the domain classifier finds least like the base, worst first."""
        order = np.argsort(-self.scores[len(self.base) :], kind="stable")
        return [int(self.rows[index]) for index in order[:count]]


def compare_splits(scan: Scan, settings: ValidateDataSettings, seed: int) -> Iterator[Compared]:
    """Train against validation and test, and against test within each value of the `skew_slices` columns."""
    train = scan.rows("train")
    for split in ("validation", "test"):
        yield _skew(scan, f"skew_{split}", train, scan.rows(split), ("train", split), settings, seed)
    for column in settings.skew_slices:
        values = np.array([entry.get(column, "") for entry in scan.slices])
        for value in sorted(set(values.tolist()) - {""}):
            inside = np.flatnonzero(values == value)
            sides = np.intersect1d(train, inside), np.intersect1d(scan.rows("test"), inside)
            names = f"train {column}={value}", f"test {column}={value}"
            yield _skew(scan, f"skew_test/{column}={value}", *sides, names, settings, seed)


def _skew(
    scan: Scan,
    name: str,
    base: NDArray[np.intp],
    other: NDArray[np.intp],
    names: tuple[str, str],
    settings: ValidateDataSettings,
    seed: int,
) -> Compared:
    reference, _ = sample_of(scan, names[0], base, settings.reference_examples)
    sample, rows = sample_of(scan, names[1], other, settings.reference_examples)
    thresholds = (settings.skew_distance, settings.skew_labels, settings.skew_auc)
    return compare("skew", name, reference, sample, rows, thresholds, settings, seed)


def compare_reference(scan: Scan, reference: Sample, settings: ValidateDataSettings, seed: int) -> Compared:
    """The training split against the reference that the schema names."""
    sample, rows = sample_of(scan, "train", scan.rows("train"), settings.reference_examples)
    thresholds = (settings.drift_distance, settings.drift_labels, settings.drift_auc)
    return compare("drift", "drift", reference, sample, rows, thresholds, settings, seed)


def compare(
    kind: Literal["drift", "skew"],
    name: str,
    base: Sample,
    sample: Sample,
    rows: NDArray[np.intp],
    thresholds: tuple[float, float, float],
    settings: ValidateDataSettings,
    seed: int,
) -> Compared:
    """Every distance between two samples; `thresholds` are those of statistics, labels and embedding.

    With fewer than `settings.min_compared` images on a side there are no measures, and `skipped` says so.
    """
    comparison = Comparison(kind=kind, name=name, base=base.name, sample=sample.name, base_images=len(base), sample_images=len(sample))
    smallest = min(len(base), len(sample))
    if smallest < settings.min_compared:
        comparison.skipped = f"{smallest} images are too few to compare (validate_data.min_compared is {settings.min_compared})"
        return Compared(comparison, base, sample, rows, np.zeros(len(base) + len(rows)))
    folds = folds_of([*(digest[:_DIGEST] for digest in base.sha256), *(digest[:_DIGEST] for digest in sample.sha256)])
    separation = separate(_stored(base), _stored(sample), folds, settings.permutations, seed)
    found = [_statistic(base, sample, column, thresholds[0]) for column in range(len(STATISTICS))]
    labels = label_shift(*_aligned(base, sample))
    found.append(("labels", labels.distance, thresholds[1], labels.p_value))
    found.append(("embedding", separation.auc, thresholds[2], separation.p_value))
    comparison.measures = _judged(found, settings.alpha)
    return Compared(comparison, base, sample, rows, separation.scores)


def _stored(sample: Sample) -> NDArray[np.float32]:
    """The descriptors as a stored reference has them: rounding alone must not tell copies apart."""
    return sample.descriptors.astype(np.float16).astype(np.float32)


def _statistic(base: Sample, sample: Sample, column: int, threshold: float) -> tuple[str, float, float, float]:
    test = kolmogorov_smirnov(base.statistics[:, column], sample.statistics[:, column])
    return STATISTICS[column], test.distance, threshold, test.p_value


def _aligned(base: Sample, sample: Sample) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    labels = sorted({*base.label_counts, *sample.label_counts})
    first, second = ([side.label_counts.get(label, 0) for label in labels] for side in (base, sample))
    return np.array(first, np.int64), np.array(second, np.int64)


def _judged(found: list[tuple[str, float, float, float]], alpha: float) -> list[Measure]:
    corrected = holm([p_value for *_, p_value in found])
    return [
        Measure(name=n, distance=d, threshold=t, p_value=p, corrected_p_value=c, flagged=d >= t and c <= alpha)
        for (n, d, t, p), c in zip(found, corrected, strict=True)
    ]


def shift_finding(comparison: Comparison, reference: str) -> list[Finding]:
    """A drift or skew anomaly if any measure counts; `reference` is the name of a sample of the new data to accept it by."""
    flagged = comparison.flagged()
    if not flagged:
        return []
    parts = [
        f"{m.name} {'AUC' if m.name == 'embedding' else 'distance'} {m.distance:.2f} (from {m.threshold:g} on, p {m.corrected_p_value:.1g})"
        for m in flagged
    ]
    what = f"{comparison.sample} differs from {comparison.base}: {', '.join(parts)}"
    if comparison.kind == "skew":
        fix = "Split the images at random, or find out what makes the splits different"
    else:
        fix = f'Look at the pictures; if the new images are right, set reference: "{reference}" in {SCHEMA}'
    return [Finding(kind=comparison.kind, where=f"split {comparison.sample}", what=what, fix=fix)]
