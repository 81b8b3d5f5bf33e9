"""Bootstrap 95 % intervals of a split's metrics, all resamples at once in numpy.

Examples are drawn with replacement (Efron, Tibshirani: An Introduction to the Bootstrap, 1993, chapter 13: percentile intervals).
The calibration error is a sum of absolute values, which resampling inflates: it gets the basic interval 2·estimate - quantile
(Davison, Hinkley: Bootstrap Methods and their Application, 1997, section 5.2). A share of exactly 0 or 1, whose resamples all agree,
gets the exact binomial bound instead of an interval of no width (Clopper, Pearson 1934).
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from components.evaluation.evaluation import Predictions
from components.evaluation.metrics import Counts, Floats, bin_index, log_losses, ratio_metrics

_LEVEL = 0.95
_QUANTILES = ((1 - _LEVEL) / 2, (1 + _LEVEL) / 2)
_CHUNK = 2_000_000
"""Drawn indices held at a time: memory stays flat whatever the split's size."""

Interval = tuple[float, float]
Indices = NDArray[np.int64]


def intervals_of(
    predictions: Predictions, labels: list[str], metrics: Mapping[str, float], replicates: Mapping[str, Floats]
) -> dict[str, Interval]:
    """The 95 % interval of every metric in `metrics` that is defined, from its `replicates`."""
    counts = _denominators(predictions, labels)
    found: dict[str, Interval] = {}
    for name, value in metrics.items():
        if not math.isfinite(value) or name not in replicates:
            continue
        if name in counts and value in (0.0, 1.0):
            found[name] = exact_bound(value, counts[name])
        elif name == "expected_calibration_error":
            found[name] = basic_interval(value, replicates[name])
        else:
            found[name] = percentile_interval(replicates[name])
    return found


def replicate_metrics(predictions: Predictions, labels: list[str], *, bins: int, resamples: int, seed: int) -> dict[str, Floats]:
    """Every metric on each of `resamples` resamples [R]; the same seed draws the same examples, so two models' replicates are paired."""
    parts = [_replicate(predictions, labels, bins, drawn) for drawn in draw(len(predictions), resamples, seed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def draw(examples: int, resamples: int, seed: int) -> Iterator[Indices]:
    """Resamples of `examples` indices in chunks [r, N], `resamples` in all; the sequence depends on the seed and N alone."""
    generator = np.random.default_rng([seed, examples])
    rows = max(1, _CHUNK // max(examples, 1))
    for start in range(0, resamples, rows):
        yield generator.integers(0, examples, (min(rows, resamples - start), examples))


def mean_interval(values: NDArray[np.bool_] | Floats, *, resamples: int, seed: int) -> Interval:
    """The 95 % interval of the mean of per-example values [N]; a share of exactly 0 or 1 gets its exact bound."""
    mean = float(np.mean(values))
    if values.dtype == np.bool_ and mean in (0.0, 1.0):
        return exact_bound(mean, len(values))
    return percentile_interval(np.concatenate([values[drawn].mean(axis=1) for drawn in draw(len(values), resamples, seed)]))


def percentile_interval(replicates: Floats) -> Interval:
    """The middle 95 % of the replicates; undefined ones are left out, NaN if all are."""
    known = replicates[np.isfinite(replicates)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, _QUANTILES)
    return float(low), float(high)


def basic_interval(value: float, replicates: Floats) -> Interval:
    """The replicates' middle 95 % mirrored at the estimate, widened to hold it, cut at 0 and 1.

    The estimate of a well calibrated model is itself inflated, so much that the mirrored interval can end below it.
    """
    low, high = percentile_interval(replicates)
    return max(0.0, min(value, 2 * value - high)), min(1.0, max(value, 2 * value - low))


def exact_bound(share: float, examples: int) -> Interval:
    """Clopper and Pearson's 95 % interval of a share that is exactly 0 or 1."""
    rest = ((1 - _LEVEL) / 2) ** (1 / examples)
    return (rest, 1.0) if share == 1.0 else (0.0, 1 - rest)


def wilson_interval(right: float, examples: int) -> Interval:
    """Wilson's 95 % interval of a share (1927): closed form, honest for the few examples of a slice."""
    z2 = 1.959964**2
    centre = (right + z2 / 2) / (examples + z2)
    share = right / examples
    half = math.sqrt(z2) / (examples + z2) * math.sqrt(examples * share * (1 - share) + z2 / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


def _denominators(predictions: Predictions, labels: list[str]) -> dict[str, int]:
    """How many examples each metric that is a share is a share of."""
    true, answers = (np.bincount(classes, minlength=len(labels)) for classes in (predictions.labels, predictions.predicted))
    counts = {"accuracy": len(predictions)}
    for index, label in enumerate(labels):
        counts |= {f"recall/{label}": int(true[index]), f"precision/{label}": int(answers[index])}
    return counts


def _replicate(predictions: Predictions, labels: list[str], bins: int, drawn: Indices) -> dict[str, Floats]:
    classes, correct = len(labels), predictions.correct
    hits = np.where(correct, predictions.labels, classes)
    counts = Counts(
        true=_sums(predictions.labels, classes, drawn),
        predicted=_sums(predictions.predicted, classes, drawn),
        hits=_sums(hits, classes + 1, drawn)[:, :classes],
    )
    named = {name: np.asarray(values) for name, values in ratio_metrics(counts, labels).items()}
    gaps = _sums(bin_index(predictions.scores, bins), bins, drawn, correct - predictions.scores)
    named["expected_calibration_error"] = np.abs(gaps).sum(axis=1) / drawn.shape[1]
    named["log_loss"] = log_losses(predictions)[drawn].mean(axis=1)
    return named


def _sums(groups: Indices, size: int, drawn: Indices, weights: Floats | None = None) -> Floats:
    """Per resample, the number (or sum of weights) of drawn examples in each group [R, size]."""
    rows = np.arange(len(drawn))[:, None] * size
    flat = (groups[drawn] + rows).ravel()
    weighted = None if weights is None else weights[drawn].ravel()
    return np.bincount(flat, weights=weighted, minlength=len(drawn) * size).reshape(len(drawn), size).astype(np.float64)
