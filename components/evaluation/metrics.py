"""Classification metrics in numpy. A ratio without a denominator is NaN: undefined, never 0 by convention.

Shapes: N examples, C classes, R resamples; leading axes of counts are kept, so that one formula serves a split and its resamples.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.evaluation.evaluation import CalibrationBin, Predictions

Floats = NDArray[np.float64]

PROBABILITY_FLOOR = 1 / 512
"""Half a step of the mobile model's output (1/256): below it a probability is not told from 0, so log loss is cut there for both."""


@dataclass(frozen=True)
class Counts:
    """Per class [..., C]: true examples, predictions, and how often both meet."""

    true: Floats
    predicted: Floats
    hits: Floats


def confusion_matrix(predictions: Predictions) -> NDArray[np.int64]:
    """[C, C] counts: row = true class, column = predicted class."""
    classes = predictions.probabilities.shape[1]
    cells = predictions.labels * classes + predictions.predicted
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def metrics_of(predictions: Predictions, labels: list[str], bins: int) -> dict[str, float]:
    """Every metric of the evaluation by its name; NaN where undefined. `predictions` must have no invalid answer."""
    matrix = confusion_matrix(predictions).astype(np.float64)
    counts = Counts(matrix.sum(axis=1), matrix.sum(axis=0), np.diag(matrix))
    named = ratio_metrics(counts, labels)
    named["expected_calibration_error"] = expected_calibration_error(predictions, bins)
    named["log_loss"] = float(log_losses(predictions).mean()) if len(predictions) else np.nan
    return {name: float(value) for name, value in named.items()}


def ratio_metrics(counts: Counts, labels: list[str]) -> dict[str, Floats | float]:
    """accuracy, macro_f1, precision/, recall/ and f1/<label> from counts [..., C]; each value has the leading shape.

    F1 is 2·hits / (true + predicted), which is 0 for a class that is never predicted. macro_f1 is its mean over classes with examples.
    """
    precision, recall = _ratio(counts.hits, counts.predicted), _ratio(counts.hits, counts.true)
    f1 = _ratio(2 * counts.hits, counts.true + counts.predicted)
    present = counts.true > 0
    named: dict[str, Floats | float] = {
        "accuracy": _ratio(counts.hits.sum(axis=-1), counts.true.sum(axis=-1)),
        "macro_f1": _ratio(np.where(present, f1, 0.0).sum(axis=-1), present.sum(axis=-1)),
    }
    for family, values in (("precision", precision), ("recall", recall), ("f1", f1)):
        named |= {f"{family}/{label}": values[..., index] for index, label in enumerate(labels)}
    return named


def bin_index(scores: Floats, bins: int) -> NDArray[np.int64]:
    """Which of `bins` equal-width bins (k/bins, (k+1)/bins] each score in [0, 1] falls into [N]."""
    return np.clip(np.ceil(scores * bins).astype(np.int64) - 1, 0, bins - 1)


def expected_calibration_error(predictions: Predictions, bins: int) -> float:
    """Σ over bins of (share of examples) · |accuracy - mean confidence|; NaN without examples.

    Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML 2017, equation 3 (there with 15 bins).
    """
    if not len(predictions):
        return float("nan")
    gaps = predictions.correct - predictions.scores
    sums = np.bincount(bin_index(predictions.scores, bins), weights=gaps, minlength=bins)
    return float(np.abs(sums).sum() / len(predictions))


def calibration_bins(predictions: Predictions, bins: int) -> list[CalibrationBin]:
    """The reliability diagram's bars, low confidence first."""
    index = bin_index(predictions.scores, bins)
    counts = np.bincount(index, minlength=bins)
    right = np.bincount(index, weights=predictions.correct, minlength=bins)
    confidence = np.bincount(index, weights=predictions.scores, minlength=bins)
    return [
        CalibrationBin(
            low=k / bins,
            high=(k + 1) / bins,
            examples=int(counts[k]),
            confidence=float(confidence[k] / counts[k]) if counts[k] else (k + 0.5) / bins,
            accuracy=float(right[k] / counts[k]) if counts[k] else 0.0,
        )
        for k in range(bins)
    ]


def log_losses(predictions: Predictions) -> Floats:
    """-ln(probability of the true class) per example [N], the probability cut at `PROBABILITY_FLOOR`."""
    true = predictions.probabilities[np.arange(len(predictions)), predictions.labels].astype(np.float64)
    return -np.log(np.clip(true, PROBABILITY_FLOOR, 1.0))


def defined(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics that are finite: what JSON can hold."""
    return {name: float(value) for name, value in metrics.items() if np.isfinite(value)}


def worst_mistakes(predictions: Predictions, most: int) -> list[int]:
    """Indices of up to `most` wrong answers, the most confident first; equals by key."""
    if predictions.invalid():
        return []
    wrong = np.flatnonzero(~predictions.correct)
    return sorted(wrong.tolist(), key=lambda index: (-predictions.scores[index], predictions.keys[index]))[:most]


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator > 0, np.divide(numerator, denominator), np.nan)
