"""Have two samples one distribution? Distances that mean something at every sample size, and p-values that say whether to believe them.

A p-value alone shrinks with the number of images until any difference is "significant", so the distance decides and the p-value only
guards against small samples. Univariate Kolmogorov–Smirnov tests with a correction for their number, and a domain classifier on top,
follow Rabanser, Günnemann and Lipton, "Failing Loudly: An Empirical Study of Methods for Detecting Dataset Shift", NeurIPS 2019.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

_FOLDS = 5
_RIDGE = 0.1


@dataclass(frozen=True)
class Test:
    """A distance and the probability of one at least as large if nothing differs."""

    distance: float
    p_value: float


@dataclass(frozen=True)
class Separation:
    """How well a classifier tells a sample from the reference: `auc`, its p-value, and each image's held-out score."""

    auc: float
    p_value: float
    scores: NDArray[np.float64]
    """One per image, reference first, then sample; comparable between images. Higher is less like the reference."""


def kolmogorov_smirnov(reference: Array, sample: Array) -> Test:
    """Largest difference of the two empirical distribution functions; both samples 1-D, not empty, finite.

    The p-value is Kolmogorov's limit with Stephens' small-sample correction ("Use of the Kolmogorov–Smirnov, Cramér–Von Mises and
    related statistics without extensive tables", JRSS B 1970), good for 20 or more a side; ties make it conservative.
    """
    first, second = np.sort(reference), np.sort(sample)
    both = np.concatenate([first, second])
    below = np.searchsorted(first, both, side="right") / len(first) - np.searchsorted(second, both, side="right") / len(second)
    distance = float(np.abs(below).max())
    root = math.sqrt(len(first) * len(second) / (len(first) + len(second)))
    return Test(distance, _kolmogorov_tail((root + 0.12 + 0.11 / root) * distance))


def _kolmogorov_tail(value: float) -> float:
    if value < 0.2:
        return 1.0  # The series below alternates too slowly to converge here, and the true value is 1 to 12 digits.
    terms = (2 * (-1) ** (j - 1) * math.exp(-2 * (j * value) ** 2) for j in range(1, 101))
    return min(1.0, max(0.0, sum(terms)))


def label_shift(reference: NDArray[np.int64], sample: NDArray[np.int64]) -> Test:
    """Total variation distance of two vectors of class counts (the share of images that would have to change class), chi-squared p-value.

    The chi-squared tail is Wilson and Hilferty's cube-root approximation (PNAS 1931).
    """
    counts = np.stack([reference, sample]).astype(np.float64)
    counts = counts[:, counts.sum(axis=0) > 0]
    shares = counts / counts.sum(axis=1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    freedom = counts.shape[1] - 1
    if freedom < 1:
        return Test(distance, 1.0)
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    statistic = float(((counts - expected) ** 2 / expected).sum())
    spread = 2 / (9 * freedom)
    normal = ((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    return Test(distance, math.erfc(normal / math.sqrt(2)) / 2)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm's step-down procedure (Scandinavian Journal of Statistics 1979), in the given order."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def separate(reference: Array, sample: Array, folds: NDArray[np.int64], permutations: int, seed: int) -> Separation:
    """Train a linear domain classifier and measure it on images that it hasn't seen.

    `reference` [n, d], `sample` [m, d]; `folds` [n + m] in 0–4, equal for identical images: a copy in both samples then counts as
    no difference. A classifier two-sample test (Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample Tests", ICLR 2017) with the
    ROC AUC as its statistic: 0.5 means indistinguishable at any sample size, 1 means separate. The classifier is ridge regression
    on the domain (Fisher's discriminant with shrinkage), whose closed form makes hundreds of relabellings one matrix product; the
    p-value is the share of relabellings, and the true one, with an AUC at least as high.
    """
    features = np.concatenate([reference, sample]).astype(np.float64)
    domain = np.repeat([0.0, 1.0], [len(reference), len(sample)])
    rng = np.random.default_rng(seed)
    labels = np.stack([domain, *(rng.permutation(domain) for _ in range(permutations))], axis=1)
    scores, auc, weights = np.zeros(len(domain)), np.zeros(permutations + 1), np.zeros(permutations + 1)
    for fold in range(_FOLDS):
        held = folds == fold
        found = _held_out_scores(features, labels, held)
        fold_auc, pairs = _auc(found, labels[held])
        auc, weights = auc + fold_auc * pairs, weights + pairs
        scores[held] = (found[:, 0] - found[:, 0].mean()) / (found[:, 0].std() + 1e-12) if held.any() else 0
    auc = auc / np.maximum(weights, 1)
    # Scores of identical samples tie up to rounding: a relabelling that ties with the truth counts as at least as high.
    p_value = float((auc[1:] >= auc[0] - 1e-9).sum() + 1) / (permutations + 1)
    return Separation(float(auc[0]), p_value, scores)


def _held_out_scores(features: NDArray[np.float64], labels: NDArray[np.float64], held: NDArray[np.bool_]) -> NDArray[np.float64]:
    train = features[~held]
    centre, scale = train.mean(axis=0), train.std(axis=0) + 1e-9
    known, unseen = (train - centre) / scale, (features[held] - centre) / scale
    targets = labels[~held] - labels[~held].mean(axis=0)
    gram = known.T @ known + _RIDGE * len(known) * np.eye(known.shape[1])
    return np.linalg.solve(gram, unseen.T).T @ (known.T @ targets)


def _auc(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """ROC AUC of each column (Mann–Whitney's U over the number of pairs, ties count half), and the number of pairs."""
    size, columns = scores.shape
    # Rounding makes equal images' scores differ in the last digits; ties must be seen as ties.
    rounded = np.round(scores, 9)
    order = np.argsort(rounded, axis=0, kind="stable")
    ordered = np.take_along_axis(rounded, order, axis=0)
    positive = np.take_along_axis(labels, order, axis=0)
    negatives = np.cumsum(1 - positive, axis=0)
    starts = np.ones(ordered.shape, bool)
    starts[1:] = ordered[1:] != ordered[:-1]
    # One number per set of tied scores, counted through all columns: the sums of a set are then one bincount.
    tied = np.cumsum(starts.T.ravel()) - 1
    hits = np.bincount(tied, positive.T.ravel())
    misses = np.bincount(tied, 1 - positive.T.ravel())
    before = (negatives - (1 - positive)).T.ravel()[starts.T.ravel()]
    column = np.repeat(np.arange(columns), starts.sum(axis=0))
    pairs = positive.sum(axis=0) * (size - positive.sum(axis=0))
    wins = np.bincount(column, hits * (before + misses / 2), columns)
    return np.where(pairs > 0, wins / np.maximum(pairs, 1), 0.5), pairs


def folds_of(sha256: Sequence[str]) -> NDArray[np.int64]:
    """The cross-validation fold (0–4) of each image by its content digest."""
    return np.array([int(digest[:8], 16) % _FOLDS for digest in sha256], np.int64)
