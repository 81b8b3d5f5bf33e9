"""The head on a frozen backbone's features: softmax regression by mini-batch Adam, in memory, with NumPy alone.

For the training, features are centred and divided by their overall deviation, and that is folded into the weights afterwards.
(Each by its own deviation was a point worse on Flowers with MobileNetV3-Small: it blows up features that say little.)
Adam: Kingma and Ba, 2015, algorithm 1; decoupled weight decay: Loshchilov and Hutter, 2019.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.core.errors import DualError
from components.training.settings import HeadSettings
from components.training.training import Epoch

Floats = np.ndarray[Any, np.dtype[np.float32]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
_EPSILON = 1e-7


@dataclass(frozen=True)
class Features:
    """A split through the frozen backbone: `values` float32 [views, N, D] (the first view is the unchanged image), `labels` [N]."""

    values: Floats
    labels: Ints


@dataclass(frozen=True)
class Head:
    """Weights of a dense softmax layer: `kernel` float32 [D, C], `bias` float32 [C]."""

    kernel: Floats
    bias: Floats

    def probabilities(self, features: Floats) -> Floats:
        """Softmax of the layer's logits, float32 [N, C]."""
        return _softmax(features @ self.kernel + self.bias)


def train_head(
    train: Features,
    validation: Features,
    settings: HeadSettings,
    *,
    weights: Sequence[float],
    label_smoothing: float,
    seed: int,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
) -> Head:
    """The head with the lowest validation loss of all epochs; `weights` are per class and give C.

    Every epoch takes each image once, in a view drawn at random. Stops after `settings.patience` epochs without improvement.
    Raises `DualError` if no epoch's loss is a number.
    """
    random = np.random.default_rng(seed)
    mean, spread = _moments(train.values)
    fit = _Fit(train, (mean, spread), settings, np.asarray(weights, np.float32), label_smoothing, random)
    best, best_loss, waited = fit.head(), math.inf, 0
    for epoch in range(settings.epochs):
        loss, accuracy = fit.run_epoch()
        head = fit.head()
        val_loss, val_accuracy = evaluate_head(head, validation)
        on_epoch(Epoch(phase="head", epoch=epoch, loss=loss, accuracy=accuracy, val_loss=val_loss, val_accuracy=val_accuracy))
        best, best_loss, waited = (head, val_loss, 0) if val_loss < best_loss else (best, best_loss, waited + 1)
        if waited >= settings.patience:
            break
    if not math.isfinite(best_loss):
        raise DualError("no epoch had a loss that is a number", where="head", fix="Check the weights, or lower head.learning_rate")
    return best


def evaluate_head(head: Head, features: Features) -> tuple[float, float]:
    """Cross-entropy in nats and accuracy on the unchanged images."""
    probabilities = head.probabilities(features.values[0])
    chosen = probabilities[np.arange(len(features.labels)), features.labels]
    accuracy = float(np.mean(probabilities.argmax(axis=1) == features.labels))
    return float(-np.mean(np.log(np.maximum(chosen, _EPSILON)))), accuracy


class _Fit:
    """The state of one training: parameters on scaled features, Adam's moments, the random numbers."""

    def __init__(
        self,
        train: Features,
        moments: tuple[Floats, np.float32],
        settings: HeadSettings,
        weights: Floats,
        label_smoothing: float,
        random: np.random.Generator,
    ) -> None:
        self.train, self.settings, self.weights, self.random = train, settings, weights, random
        self.mean, self.spread = moments
        classes = len(weights)
        self.targets = np.eye(classes, dtype=np.float32) * np.float32(1 - label_smoothing) + np.float32(label_smoothing / classes)
        self.parameters = np.zeros((train.values.shape[2] + 1, classes), np.float32)
        self.first, self.second = np.zeros_like(self.parameters), np.zeros_like(self.parameters)
        self.step = 0

    def head(self) -> Head:
        """The parameters with the scaling folded in."""
        kernel = self.parameters[:-1] / self.spread
        return Head(kernel, self.parameters[-1] - self.mean @ kernel)

    def run_epoch(self) -> tuple[float, float]:
        """One pass over all images; the mean loss and accuracy of its steps."""
        order = self.random.permutation(len(self.train.labels))
        views = self.random.integers(len(self.train.values), size=len(order))
        batches = [order[start : start + self.settings.batch_size] for start in range(0, len(order), self.settings.batch_size)]
        results = [self._step(self.train.values[views[rows], rows], self.train.labels[rows]) * len(rows) for rows in batches]
        loss, accuracy = np.sum(results, axis=0) / len(order)
        return float(loss), float(accuracy)

    def _step(self, features: Floats, labels: Ints) -> Floats:
        inputs = (features - self.mean) / self.spread
        kept = self.random.random(inputs.shape, np.float32) >= self.settings.dropout
        ones = np.ones((len(labels), 1), np.float32)
        dropped: Floats = np.concatenate([inputs * kept / np.float32(1 - self.settings.dropout), ones], axis=1)
        probabilities = _softmax(dropped @ self.parameters)
        targets, weights = self.targets[labels], self.weights[labels]
        self._adam(dropped.T @ ((probabilities - targets) * weights[:, None]) / np.float32(len(labels)))
        losses = -np.sum(targets * np.log(np.maximum(probabilities, _EPSILON)), axis=1) * weights
        return np.array([losses.mean(), np.mean(probabilities.argmax(axis=1) == labels)], np.float32)

    def _adam(self, gradient: Floats) -> None:
        rate = self._learning_rate()
        self.step += 1
        self.first = np.float32(0.9) * self.first + np.float32(0.1) * gradient
        self.second = np.float32(0.999) * self.second + np.float32(0.001) * gradient**2
        scale = rate * math.sqrt(1 - 0.999**self.step) / (1 - 0.9**self.step)
        decay = np.float32(rate * self.settings.weight_decay) * self.parameters
        decay[-1] = 0
        self.parameters = self.parameters - np.float32(scale) * self.first / (np.sqrt(self.second) + np.float32(_EPSILON)) - decay

    def _learning_rate(self) -> float:
        steps = self.settings.epochs * math.ceil(len(self.train.labels) / self.settings.batch_size)
        return self.settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, self.step / steps)))


def _moments(values: Floats) -> tuple[Floats, np.float32]:
    """Mean of each feature over the unchanged images, and the deviation from it over all features together (never 0)."""
    mean = values[0].mean(axis=0)
    return mean, np.float32(max(float(np.sqrt(np.mean((values[0] - mean) ** 2))), _EPSILON))


def _softmax(logits: Floats) -> Floats:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)
