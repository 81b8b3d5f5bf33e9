"""The evaluation as KFP's ClassificationMetrics, which the UI draws: confusion matrix and ROC curve, plain finite numbers only."""

from pathlib import Path
from typing import Any

import numpy as np

from components.evaluation.evaluation import Predictions, read_evaluation, read_predictions
from components.evaluation.metrics import Floats

_STEPS = 100


def log_classification(artifact: Any, root: Path) -> None:
    """Log the evaluation in `root` to a KFP ClassificationMetrics artifact; nothing if the model gave invalid answers."""
    evaluation = read_evaluation(root)
    if not evaluation.confusion:
        return
    artifact.log_confusion_matrix(evaluation.labels, evaluation.confusion)
    false, true, thresholds = roc_curve(read_predictions(root))
    if len(false):
        artifact.log_roc_curve(false.tolist(), true.tolist(), thresholds.tolist())


def roc_curve(predictions: Predictions) -> tuple[Floats, Floats, Floats]:
    """(false positive rate, true positive rate, threshold), macro average of one class against the rest, from (0, 0) to (1, 1).

    Thresholds are a fixed grid from just above 1 down to 0: finite, unlike the first threshold of the usual definition, which KFP's
    metadata can't hold. Classes without examples, or without others, are left out; empty arrays if none is left.
    """
    thresholds = np.concatenate([[1 + 1 / _STEPS], np.linspace(1, 0, _STEPS + 1)])
    rates = [_rates(predictions, index, thresholds) for index in range(predictions.probabilities.shape[1])]
    known = [rate for rate in rates if np.isfinite(rate).all()]
    if not known:
        return np.empty(0), np.empty(0), np.empty(0)
    false, true = np.mean(known, axis=0)
    return false, true, thresholds


def _rates(predictions: Predictions, index: int, thresholds: Floats) -> Floats:
    scores, positive = predictions.probabilities[:, index], predictions.labels == index
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.array([_share_at_least(scores[~positive], thresholds), _share_at_least(scores[positive], thresholds)])


def _share_at_least(scores: Any, thresholds: Floats) -> Floats:
    below = np.searchsorted(np.sort(scores), thresholds, side="left")
    return (len(scores) - below) / np.float64(len(scores))
