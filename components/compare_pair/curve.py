"""The layered policy's curve: accuracy against share of cloud calls, for every threshold that makes a difference."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.core.digest import sha256_bytes
from components.core.policy import ALWAYS_ASK, NEVER_ASK
from components.evaluation.metrics import Floats

Booleans = NDArray[np.bool_]
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Layers:
    """Both models on the same N examples: the phone's confidence, and who is right."""

    scores: Floats
    mobile: Booleans
    cloud: Booleans

    def take(self, chosen: Booleans) -> "Layers":
        """Some of the examples."""
        return Layers(self.scores[chosen], self.mobile[chosen], self.cloud[chosen])

    def correct(self, threshold: float) -> Booleans:
        """Whether the layered answer is right, per example: the phone's where its score is at least the threshold, else the cloud's."""
        return np.where(self.scores >= threshold, self.mobile, self.cloud)


@dataclass(frozen=True)
class Curve:
    """One point per distinct behaviour, cloud calls growing: [0] never asks, [-1] always asks."""

    thresholds: Floats
    accuracy: Floats
    cloud_share: Floats

    def points(self) -> list[tuple[float, float, float]]:
        """(threshold, accuracy, share of cloud calls) of each point."""
        return list(zip(self.thresholds.tolist(), self.accuracy.tolist(), self.cloud_share.tolist(), strict=True))


@dataclass(frozen=True)
class Choice:
    """A chosen point of a curve."""

    threshold: float
    target: float
    reached: bool
    index: int


def policy_curve(layers: Layers) -> Curve:
    """The exact curve over all distinct scores (N ≥ 1).

    With the scores sorted, a threshold at the k-th asks the cloud about the k examples below it, so that two cumulative sums give every
    point at once.
    """
    order = np.argsort(layers.scores, kind="stable")
    distinct, below = np.unique(layers.scores[order], return_index=True)
    # The lowest score asks nobody, like the threshold 0 that stands for it.
    asked = np.concatenate([[0], below[1:], [len(order)]])
    cloud, mobile = (np.concatenate([[0], np.cumsum(right[order])]) for right in (layers.cloud, layers.mobile))
    right = cloud[asked] + mobile[-1] - mobile[asked]
    thresholds = np.concatenate([[NEVER_ASK], distinct[1:], [ALWAYS_ASK]])
    return Curve(thresholds, right / len(order), asked / len(order))


def choose(curve: Curve, target: float | None, margin: float = 0.0) -> Choice:
    """The point that reaches the target with the fewest cloud calls; if none does, the most accurate one, again with the fewest calls.

    `target` None means the better one of the two models (the curve's ends) less `margin`.
    """
    wanted = max(float(curve.accuracy[0]), float(curve.accuracy[-1])) - margin if target is None else target
    reaching = np.flatnonzero(curve.accuracy >= wanted - _ROUNDING)
    index = int(reaching[0]) if len(reaching) else int(np.argmax(curve.accuracy))
    return Choice(float(curve.thresholds[index]), wanted, bool(len(reaching)), index)


def cross_fitted(layers: Layers, keys: list[str], target: float | None, margin: float, folds: int) -> tuple[Booleans, Booleans]:
    """(right, asked) per example under a threshold that was chosen without it: what the policy will do on images not seen yet.

    A threshold looks better on the examples that it was chosen on; here the split's other folds choose it for each fold (cross-fitting,
    Stone 1974, "Cross-validatory choice and assessment of statistical predictions"). Folds follow the keys, so the order doesn't matter.
    """
    fold = np.array([int(sha256_bytes(key.encode())[:12], 16) % folds for key in keys])
    right, asked = np.zeros(len(keys), dtype=np.bool_), np.zeros(len(keys), dtype=np.bool_)
    for number in np.unique(fold):
        mine = fold == number
        others = layers.take(~mine) if not mine.all() else layers
        threshold = choose(policy_curve(others), target, margin).threshold
        right[mine] = layers.take(mine).correct(threshold)
        asked[mine] = layers.scores[mine] < threshold
    return right, asked
