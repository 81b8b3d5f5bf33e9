"""The two-sample tests: against scipy where it is installed, against hand-made cases, and under the null hypothesis."""

import numpy as np
import pytest

from components.core.digest import sha256_bytes
from components.validate_data.compare import compare
from components.validate_data.measure import DIMENSIONS, STATISTICS
from components.validate_data.reference import Sample
from components.validate_data.settings import ValidateDataSettings
from components.validate_data.two_sample import folds_of, holm, kolmogorov_smirnov, label_shift, separate

RNG = np.random.default_rng(5)


def test_disjoint_samples_are_at_distance_one() -> None:
    test = kolmogorov_smirnov(np.arange(30.0), np.arange(100.0, 140.0))
    assert test.distance == 1.0
    assert test.p_value < 1e-10


def test_equal_samples_are_at_distance_zero() -> None:
    assert kolmogorov_smirnov(np.arange(30.0), np.arange(30.0)).distance == 0.0
    assert kolmogorov_smirnov(np.arange(30.0), np.arange(30.0)).p_value == 1.0


@pytest.mark.parametrize(("first", "second", "shift"), [(40, 60, 0.0), (40, 60, 0.6), (300, 1000, 0.1), (2000, 2000, 0.05)])
def test_kolmogorov_smirnov_agrees_with_scipy(first: int, second: int, shift: float) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed: nothing to compare with")
    a, b = RNG.normal(size=first), RNG.normal(shift, size=second)
    ours, theirs = kolmogorov_smirnov(a, b), stats.ks_2samp(a, b, method="exact" if first < 100 else "asymp")
    assert ours.distance == pytest.approx(theirs.statistic, abs=1e-12)
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=0.15, abs=0.02)


@pytest.mark.parametrize(("after", "tolerance"), [([45, 62, 30, 14], 0.05), ([30, 40, 40, 20], 0.1), ([30, 25, 60, 12], 0.4)])
def test_label_shift_agrees_with_scipy(after: list[int], tolerance: float) -> None:
    """Wilson and Hilferty's approximation is close where a decision is made, and of the right order far out."""
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed: nothing to compare with")
    table = np.array([[50, 60, 40, 10], after])
    assert label_shift(*table).p_value == pytest.approx(stats.chi2_contingency(table, correction=False)[1], rel=tolerance)


def test_label_shift_is_the_share_that_changed_class() -> None:
    assert label_shift(np.array([50, 50]), np.array([100, 0])).distance == pytest.approx(0.5)
    assert label_shift(np.array([10, 0]), np.array([20, 0])).p_value == 1.0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_a_small_difference_has_a_tiny_p_value_but_a_small_distance_in_large_samples() -> None:
    test = kolmogorov_smirnov(RNG.normal(size=50_000), RNG.normal(0.05, size=50_000))
    assert test.p_value < 1e-6
    assert test.distance < 0.05


def _digests(count: int, start: int = 0) -> list[str]:
    return [sha256_bytes(str(start + number).encode()) for number in range(count)]


def test_a_classifier_finds_what_no_single_dimension_shows() -> None:
    """Two dimensions that are correlated in one sample only as a shift along the diagonal: each alone moves little."""
    noise = RNG.normal(size=(800, 1)) @ np.array([[1.0, 1.0]]) + RNG.normal(0, 0.1, (800, 2))
    moved = noise[400:] + np.array([0.3, -0.3])
    assert kolmogorov_smirnov(noise[:400, 0], moved[:, 0]).distance < 0.25
    found = separate(noise[:400], moved, folds_of(_digests(800)), 199, seed=1)
    assert found.auc > 0.95
    assert found.p_value == 1 / 200


def test_only_a_distance_beyond_its_threshold_counts_however_small_its_p_value() -> None:
    settings = ValidateDataSettings.model_validate({})
    samples = []
    for number, shift in enumerate((0.0, 0.15)):
        statistics = RNG.normal(shift, size=(4000, len(STATISTICS))).astype(np.float32)
        descriptors = np.zeros((4000, DIMENSIONS), np.float32)
        samples.append(Sample(f"sample {number}", statistics, descriptors, _digests(4000, 4000 * number), {"daisy": 4000}))
    found = compare("drift", "drift", samples[0], samples[1], np.arange(4000), (0.15, 0.15, 0.65), settings, seed=1).comparison
    assert min(measure.corrected_p_value for measure in found.measures) < 1e-6
    assert found.flagged() == []
    found = compare("drift", "drift", samples[0], samples[1], np.arange(4000), (0.03, 0.15, 0.65), settings, seed=1).comparison
    assert {measure.name for measure in found.flagged()} == set(STATISTICS)


@pytest.mark.parametrize("seed", range(6))
def test_samples_of_one_distribution_are_not_told_apart(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = separate(rng.normal(size=(300, 40)), rng.normal(size=(90, 40)), folds_of(_digests(390, seed * 1000)), 199, seed)
    assert 0.38 < found.auc < 0.62
    assert found.p_value > 0.01


def test_copies_are_no_difference() -> None:
    """Copies share a fold; were they split over training and test, the classifier would be trained with their opposite label."""
    features, digests = RNG.normal(size=(201, 30)), _digests(201)
    found = separate(features, features, folds_of([*digests, *digests]), 199, seed=1)
    assert found.auc == pytest.approx(0.5, abs=1e-6)
    assert found.p_value > 0.1


def test_the_scores_name_the_odd_ones() -> None:
    reference, sample = RNG.normal(size=(300, 10)), RNG.normal(size=(100, 10))
    sample[:20] += 3
    found = separate(reference, sample, folds_of(_digests(400)), 99, seed=1)
    worst = np.argsort(-found.scores[300:])[:20]
    assert np.isin(worst, np.arange(20)).sum() >= 18


def test_the_same_seed_gives_the_same_p_value() -> None:
    reference, sample = RNG.normal(size=(60, 5)), RNG.normal(0.2, size=(60, 5))
    folds = folds_of(_digests(120))
    assert separate(reference, sample, folds, 99, 7).p_value == separate(reference, sample, folds, 99, 7).p_value
