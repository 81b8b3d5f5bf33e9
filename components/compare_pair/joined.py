"""Two evaluations of the same examples, joined by key."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.compare_pair.curve import Layers
from components.core.errors import DataError
from components.core.examples import Examples, Split, labels_digest
from components.evaluation.evaluation import Evaluation, ModelKind, Predictions, read_evaluation, read_predictions

_FIX = "Evaluate both models on the same examples and the same split"


@dataclass(frozen=True)
class Answers:
    """One model's answers. One that is no probability agrees with nothing, is wrong, and has no confidence."""

    predicted: NDArray[np.int64]
    """Class per example, -1 where the answer is invalid."""
    scores: NDArray[np.float64]
    correct: NDArray[np.bool_]
    invalid: int


@dataclass(frozen=True)
class Joined:
    """Both models on N examples, sorted by key."""

    keys: list[str]
    labels: NDArray[np.int64]
    """True classes [N]."""
    cloud: Answers
    mobile: Answers
    split: Split

    def layers(self) -> Layers:
        """What the layered policy is made from."""
        return Layers(self.mobile.scores, self.mobile.correct, self.cloud.correct)

    def agree(self) -> NDArray[np.bool_]:
        """Whether both give the same answer, per example."""
        return (self.cloud.predicted == self.mobile.predicted) & (self.cloud.predicted >= 0)


def join_evaluations(cloud: Path, mobile: Path, examples: Examples) -> Joined:
    """Read both evaluations and join their predictions.

    Raises `DataError` if they differ in split, labels, examples or keys, or if either is no evaluation of these examples.
    """
    left, right = _read(cloud, "cloud", examples), _read(mobile, "mobile", examples)
    if left[0].split != right[0].split:
        raise DataError(f"the cloud model was evaluated on {left[0].split}, the mobile model on {right[0].split}", fix=_FIX)
    a, b = _sorted(left[1], cloud), _sorted(right[1], mobile)
    _check_keys(a, b)
    return Joined(a.keys.tolist(), a.labels, _answers(a), _answers(b), left[0].split)


def _read(root: Path, kind: ModelKind, examples: Examples) -> tuple[Evaluation, Predictions]:
    evaluation, predictions = read_evaluation(root), read_predictions(root)
    if evaluation.model != kind:
        raise DataError(f"is the evaluation of the {evaluation.model} model, expected the {kind} model", where=str(root), fix=_FIX)
    if labels_digest(evaluation.labels) != examples.labels_digest():
        raise DataError(f"has the labels {evaluation.labels}, the examples have {examples.labels}", where=str(root), fix=_FIX)
    if evaluation.examples_digest != examples.digest:
        raise DataError("is about other examples than this run's", where=str(root), fix=_FIX)
    if predictions.probabilities.shape[1] != len(examples.labels):
        raise DataError(
            f"has {predictions.probabilities.shape[1]} probabilities for {len(examples.labels)} labels", where=str(root), fix=_FIX
        )
    return evaluation, predictions


def _sorted(predictions: Predictions, root: Path) -> Predictions:
    if len(np.unique(predictions.keys)) != len(predictions):
        raise DataError("has several answers for one key", where=str(root), fix=_FIX)
    order = np.argsort(predictions.keys)
    return Predictions(predictions.keys[order], predictions.labels[order], predictions.probabilities[order])


def _check_keys(cloud: Predictions, mobile: Predictions) -> None:
    ours, theirs = set(cloud.keys.tolist()), set(mobile.keys.tolist())
    if ours != theirs:
        odd = sorted(ours ^ theirs)
        raise DataError(f"the two evaluations differ in {len(odd)} examples, the first is '{odd[0]}'", fix=_FIX)
    if not ours:
        raise DataError("the evaluations hold no examples", fix=_FIX)
    differ = np.flatnonzero(cloud.labels != mobile.labels)
    if len(differ):
        raise DataError(f"the two evaluations give '{cloud.keys[differ[0]]}' different true classes", fix=_FIX)


def _answers(predictions: Predictions) -> Answers:
    valid = predictions.valid()
    scores = np.where(valid, np.nan_to_num(predictions.scores, nan=0.0, posinf=0.0, neginf=0.0), 0.0)
    predicted = np.where(valid, predictions.predicted, -1)
    return Answers(predicted, scores, predictions.correct & valid, predictions.invalid())
