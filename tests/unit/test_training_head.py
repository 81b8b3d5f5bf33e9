"""The head on frozen features: learns, folds its scaling in, stops early, keeps the best, repeats itself."""

import numpy as np
import pytest

from components.core.errors import DualError
from components.training.head import Features, Head, evaluate_head, train_head
from components.training.settings import HeadSettings
from components.training.training import Epoch, class_weights, epochs_per_phase


def clouds(count: int, seed: int, views: int = 2, classes: int = 3, noise: float = 1.0, scale: float = 1.0) -> Features:
    """Gaussian clouds around class centres, far from zero; one feature is constant."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 2, (classes, 8))
    labels = np.arange(count) % classes
    values = centres[labels][None] + random.normal(0, noise, (views, count, 8))
    values = scale * (values * np.array([1, 1, 1, 1, 1, 1, 0.1, 0]) + np.array([0, 5, -30, 0, 1, 0, 0, 7]))
    return Features(values.astype(np.float32), labels)


def fit(train: Features, validation: Features, **changes: float) -> tuple[Head, list[Epoch]]:
    settings = HeadSettings.model_validate({"epochs": 30, "learning_rate": 0.02, "dropout": 0.1, **changes})
    heard: list[Epoch] = []
    head = train_head(train, validation, settings, weights=[1.0] * 3, label_smoothing=0.1, seed=3, on_epoch=heard.append)
    return head, heard


@pytest.mark.parametrize("scale", [1e-4, 1, 1e3])
def test_learns_features_of_any_scale(scale: float) -> None:
    head, epochs = fit(clouds(300, 1, scale=scale), clouds(90, 2, scale=scale))
    loss, accuracy = evaluate_head(head, clouds(300, 3, scale=scale))
    assert accuracy > 0.95
    assert loss < 0.4
    assert [epoch.epoch for epoch in epochs] == list(range(len(epochs)))


def test_keeps_the_weights_of_the_lowest_validation_loss() -> None:
    validation = clouds(60, 2, noise=3)
    head, epochs = fit(clouds(30, 1, noise=3), validation, learning_rate=0.3, patience=30)
    losses = [epoch.val_loss for epoch in epochs]
    assert min(losses) < losses[-1], "the case must overfit, or it shows nothing"
    assert evaluate_head(head, validation)[0] == pytest.approx(min(losses))


def test_stops_when_nothing_improves() -> None:
    _, epochs = fit(clouds(30, 1, noise=3), clouds(60, 2, noise=3), epochs=500, learning_rate=0.3, patience=4)
    best = min(range(len(epochs)), key=lambda index: epochs[index].val_loss)
    assert len(epochs) == best + 1 + 4


def test_same_seed_same_head() -> None:
    first, second = fit(clouds(90, 1), clouds(30, 2))[0], fit(clouds(90, 1), clouds(30, 2))[0]
    np.testing.assert_array_equal(first.kernel, second.kernel)
    np.testing.assert_array_equal(first.bias, second.bias)


def test_features_that_are_no_numbers_are_an_error() -> None:
    broken = Features(np.full((1, 6, 4), np.nan, np.float32), np.arange(6) % 3)
    with pytest.raises(DualError, match="loss that is a number"):
        fit(broken, broken)


def test_probabilities_are_a_distribution_even_for_huge_logits() -> None:
    probabilities = Head(np.full((2, 3), 1e4, np.float32), np.array([0, 1, 2], np.float32)).probabilities(np.ones((4, 2), np.float32))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_weighted_classes_are_found_more_often() -> None:
    values = np.random.default_rng(0).normal(0, 1, (1, 400, 4)).astype(np.float32)
    labels = (np.arange(400) % 10 == 0).astype(np.int64)
    data, settings = Features(values, labels), HeadSettings(epochs=30, dropout=0)
    plain = train_head(data, data, settings, weights=[1, 1], label_smoothing=0, seed=1)
    weighed = train_head(data, data, settings, weights=class_weights("auto", {"a": 360, "b": 40}), label_smoothing=0, seed=1)
    shares = [float(np.mean(head.probabilities(values[0]).argmax(axis=1))) for head in (plain, weighed)]
    assert shares[0] < 0.05
    assert shares[1] > 0.2


@pytest.mark.parametrize(
    ("mode", "counts", "expected"),
    [
        ("auto", [10, 14], [1, 1]),
        ("auto", [10, 30], [2, 2 / 3]),
        ("balanced", [10, 30], [2, 2 / 3]),
        ("none", [10, 300], [1, 1]),
        ("balanced", [10, 0, 30], [2, 0, 2 / 3]),
    ],
)
def test_class_weights(mode: str, counts: list[int], expected: list[float]) -> None:
    weights = class_weights(mode, dict(zip("abc", counts, strict=False)))  # pyright: ignore[reportArgumentType]
    assert weights == pytest.approx(expected)


def test_epochs_are_counted_per_phase() -> None:
    def epoch(phase: str) -> Epoch:
        return Epoch.model_validate({"phase": phase, "epoch": 0, "loss": 1, "accuracy": 0, "val_loss": 1, "val_accuracy": 0})

    assert epochs_per_phase([epoch("head"), epoch("head"), epoch("fine_tune")]) == {"head": 2, "fine_tune": 1}
