"""Metrics, intervals and slices against hand-worked examples and straightforward loops."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.core.errors import DataError
from components.core.gate import Gate, Threshold, combine, refuse
from components.evaluation.baseline import Answered, paired_changes
from components.evaluation.bootstrap import basic_interval, draw, exact_bound, mean_interval, replicate_metrics, wilson_interval
from components.evaluation.classification import roc_curve
from components.evaluation.evaluation import (
    BaselineComparison,
    Evaluation,
    Predictions,
    read_evaluation,
    read_predictions,
    write_evaluation,
)
from components.evaluation.measure import Measurement, compare, judge_measurement
from components.evaluation.metrics import (
    bin_index,
    calibration_bins,
    confusion_matrix,
    expected_calibration_error,
    metrics_of,
    worst_mistakes,
)
from components.evaluation.slices import Look, automatic_columns, example_columns, look_at, slice_masks

LABELS = ["a", "b", "c"]


def predictions(labels: list[int], rows: list[list[float]]) -> Predictions:
    keys = np.array([f"k{index:04}" for index in range(len(labels))], dtype=np.str_)
    return Predictions(keys, np.array(labels, np.int64), np.array(rows, np.float32).reshape(len(labels), -1))


def random_predictions(count: int, seed: int = 0, skill: float = 1.5) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    logits = rng.normal(0, 1, (count, 3))
    logits[np.arange(count), labels] += skill
    odds = np.exp(logits)
    return predictions(labels.tolist(), (odds / odds.sum(axis=1, keepdims=True)).tolist())


FIVE = predictions([0, 0, 1, 1, 1], [[0.9, 0.1, 0], [0.4, 0.6, 0], [0.2, 0.8, 0], [0.3, 0.7, 0], [0.55, 0.45, 0]])
"""Answers a, b, b, b, a: three of five are right; c is neither true nor answered."""


# --- metrics


def test_metrics_of_a_hand_worked_example() -> None:
    found = metrics_of(FIVE, LABELS, 15)
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert [found[f"precision/{label}"] for label in "ab"] == pytest.approx([1 / 2, 2 / 3])
    assert [found[f"recall/{label}"] for label in "ab"] == pytest.approx([1 / 2, 2 / 3])
    assert [found[f"f1/{label}"] for label in "ab"] == pytest.approx([1 / 2, 2 / 3])
    assert found["macro_f1"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["log_loss"] == pytest.approx(-np.mean(np.log([0.9, 0.4, 0.8, 0.7, 0.45])), rel=1e-6)


def test_a_class_without_examples_or_answers_is_undefined_not_zero() -> None:
    found = metrics_of(FIVE, LABELS, 15)
    assert all(math.isnan(found[f"{family}/c"]) for family in ("precision", "recall", "f1"))


def test_a_class_that_is_never_answered_has_f1_zero_and_no_precision() -> None:
    found = metrics_of(predictions([0, 1], [[1, 0], [1, 0]]), ["a", "b"], 15)
    assert (found["f1/b"], found["recall/b"]) == (0.0, 0.0)
    assert math.isnan(found["precision/b"])
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_confusion_counts_true_by_answer() -> None:
    assert confusion_matrix(FIVE).tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]


def test_no_examples_make_undefined_metrics() -> None:
    empty = Predictions(np.array([], np.str_), np.array([], np.int64), np.zeros((0, 3), np.float32))
    assert all(math.isnan(value) for value in metrics_of(empty, LABELS, 15).values())


def test_a_probability_of_zero_costs_a_finite_log_loss() -> None:
    found = metrics_of(predictions([0], [[0.0, 1.0, 0.0]]), LABELS, 15)
    assert found["log_loss"] == pytest.approx(math.log(512))


def test_calibration_error_of_a_hand_worked_example() -> None:
    sure = predictions([0, 0, 1, 0], [[0.95, 0.05], [0.95, 0.05], [0.95, 0.05], [0.55, 0.45]])
    # Three in the top bin: accuracy 2/3 at confidence 0.95; one at 0.55, right.
    assert expected_calibration_error(sure, 10) == pytest.approx(3 / 4 * (0.95 - 2 / 3) + 1 / 4 * (1 - 0.55), rel=1e-6)


def test_a_calibrated_model_has_a_small_error_and_an_overconfident_one_a_large_one() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 20_000)
    labels = (rng.uniform(size=20_000) > confidence).astype(int)
    calibrated = predictions(labels.tolist(), np.stack([confidence, 1 - confidence], axis=1).tolist())
    boastful = predictions(labels.tolist(), np.tile([0.999, 0.001], (20_000, 1)).tolist())
    assert expected_calibration_error(calibrated, 15) < 0.02
    assert expected_calibration_error(boastful, 15) == pytest.approx(0.25, abs=0.02)


def test_bins_are_closed_above() -> None:
    assert bin_index(np.array([0.0, 0.1, 0.100001, 0.5, 1.0]), 10).tolist() == [0, 0, 1, 4, 9]


def test_the_reliability_bars_add_up_to_the_error() -> None:
    found = random_predictions(500)
    bars = calibration_bins(found, 15)
    total = sum(bar.examples * abs(bar.accuracy - bar.confidence) for bar in bars) / 500
    assert total == pytest.approx(expected_calibration_error(found, 15))
    assert sum(bar.examples for bar in bars) == 500


# --- intervals


def test_replicates_equal_the_metrics_of_the_drawn_examples() -> None:
    found = random_predictions(60)
    replicates = replicate_metrics(found, LABELS, bins=15, resamples=200, seed=7)
    for row, drawn in enumerate(next(iter(draw(60, 200, 7)))[:5]):
        again = metrics_of(Predictions(found.keys[drawn], found.labels[drawn], found.probabilities[drawn]), LABELS, 15)
        for name, value in again.items():
            assert replicates[name][row] == pytest.approx(value, nan_ok=True), name


def test_the_interval_of_accuracy_is_that_of_a_binomial() -> None:
    found = random_predictions(400)
    measured = Measurement(found, LABELS, {}, 15, 2000, 1)
    low, high = measured.intervals["accuracy"]
    accuracy = measured.metrics["accuracy"]
    deviation = math.sqrt(accuracy * (1 - accuracy) / 400)
    assert (low, high) == pytest.approx((accuracy - 1.96 * deviation, accuracy + 1.96 * deviation), abs=0.008)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    truth = np.mean([metrics_of(random_predictions(2000, seed), LABELS, 15)["macro_f1"] for seed in range(20)])
    hits = 0
    for seed in range(100):
        measured = Measurement(random_predictions(150, seed + 1000), LABELS, {}, 15, 300, seed)
        low, high = measured.intervals["macro_f1"]
        hits += low <= truth <= high
    assert hits >= 86, hits


def test_the_calibration_interval_holds_its_estimate_although_resampling_inflates_it() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 300)
    labels = (rng.uniform(size=300) > confidence).astype(int).tolist()
    measured = Measurement(predictions(labels, np.stack([confidence, 1 - confidence], axis=1).tolist()), ["a", "b"], {}, 15, 2000, 1)
    low, high = measured.intervals["expected_calibration_error"]
    assert low <= measured.metrics["expected_calibration_error"] <= high
    # Percentiles alone would sit above the estimate: the mean of the replicates does.
    assert measured.replicates["expected_calibration_error"].mean() > measured.metrics["expected_calibration_error"]


def test_a_perfect_score_has_an_interval_all_the_same() -> None:
    measured = Measurement(predictions([0, 1] * 10, [[1, 0], [0, 1]] * 10), ["a", "b"], {}, 15, 200, 1)
    assert measured.intervals["accuracy"] == pytest.approx((0.025 ** (1 / 20), 1.0))
    assert measured.intervals["recall/a"] == pytest.approx((0.025 ** (1 / 10), 1.0))


def test_bounds_by_the_textbook() -> None:
    assert exact_bound(1.0, 30) == pytest.approx((0.8843, 1.0), abs=1e-4)
    assert exact_bound(0.0, 30) == pytest.approx((0.0, 0.1157), abs=1e-4)
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert basic_interval(0.03, np.linspace(0.04, 0.12, 1001)) == (0.0, 0.03)
    assert basic_interval(0.05, np.linspace(0.04, 0.12, 1001)) == pytest.approx((0.0, 0.058), abs=1e-3)


def test_intervals_depend_on_the_seed_alone() -> None:
    found = random_predictions(80)
    first, again, other = (Measurement(found, LABELS, {}, 15, 300, seed).intervals for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_draws_do_not_depend_on_how_they_are_cut_and_stay_small() -> None:
    chunks = list(draw(900_000, 5, 1))
    assert [len(chunk) for chunk in chunks] == [2, 2, 1]
    assert np.array_equal(np.concatenate(list(draw(50, 300, 3))), np.concatenate(list(draw(50, 300, 3))))


def test_the_interval_of_a_mean_of_differences() -> None:
    low, high = mean_interval(np.array([1.0, -1.0, 0.0, 0.0] * 50), resamples=1000, seed=1)
    assert low < 0 < high
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.5 / 200), rel=0.1)


# --- slices


def test_slices_have_their_own_metrics_and_counts() -> None:
    masks = slice_masks({"source": ["web", "web", "web", "phone", "phone"]})
    slices = Measurement(FIVE, LABELS, masks, 15, 200, 1).slices
    assert (slices["source=web"]["examples"], slices["source=web"]["accuracy"]) == (3, pytest.approx(2 / 3))
    assert (slices["source=phone"]["examples"], slices["source=phone"]["accuracy"]) == (2, 0.5)


def test_an_example_without_a_value_is_in_no_slice_of_the_column() -> None:
    masks = slice_masks(example_columns([{"source": "web"}, {}, {"source": "web", "light": "flash"}]))
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "light=flash": [False, False, True],
        "source=web": [True, False, True],
    }


def test_automatic_slices_are_terciles() -> None:
    looks = [Look(brightness=float(index), pixels=100 * (index % 3 + 1)) for index in range(90)]
    columns = automatic_columns(looks)
    assert [columns["brightness"].count(name) for name in ("dark", "medium", "bright")] == [30, 30, 30]
    assert columns["brightness"][0] == "dark"
    assert columns["brightness"][-1] == "bright"


def test_there_are_no_automatic_slices_of_what_does_not_vary() -> None:
    assert "size" not in automatic_columns([Look(float(index), 64) for index in range(90)])
    assert automatic_columns([Look(float(index), index) for index in range(29)]) == {}


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_look_at_an_image(kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), (100, 100, 100)).save(buffer, kind)
    look = look_at(buffer.getvalue())
    assert look.pixels == 60_000
    assert look.brightness == pytest.approx(100, abs=2)


# --- ROC, mistakes


def test_the_roc_curve_is_finite_and_ends_in_both_corners() -> None:
    false, true, thresholds = roc_curve(random_predictions(200))
    assert np.isfinite([false, true, thresholds]).all()
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert (np.diff(false) >= 0).all()
    assert (np.diff(true) >= 0).all()
    assert (np.diff(thresholds) < 0).all()


def test_the_roc_curve_counts_scores_at_the_threshold() -> None:
    false, true, thresholds = roc_curve(predictions([0, 0, 1, 1], [[0.9, 0.1], [0.4, 0.6], [0.6, 0.4], [0.2, 0.8]]))
    at_half = int(np.argmin(abs(thresholds - 0.5)))
    assert (false[at_half], true[at_half]) == (0.5, 0.5)


def test_a_score_at_the_threshold_is_positive() -> None:
    false, true, thresholds = roc_curve(predictions([0, 1], [[0.5, 0.5], [0.5, 0.5]]))
    at_half = int(np.argmin(abs(thresholds - 0.5)))
    assert (false[at_half], true[at_half], true[at_half - 1]) == (1, 1, 0)


def test_one_class_alone_has_no_roc_curve() -> None:
    assert not len(roc_curve(predictions([0, 0], [[0.9, 0.1], [0.4, 0.6]]))[0])


def test_the_worst_mistakes_are_the_most_confident_ones() -> None:
    assert worst_mistakes(FIVE, 10) == [1, 4]
    assert worst_mistakes(FIVE, 1) == [1]


# --- the verdict on a measurement


def test_answers_that_are_no_probabilities_are_refused_and_measure_nothing() -> None:
    for bad in (math.nan, math.inf, -0.5, 1.5):
        broken = predictions([0, 1], [[0.9, 0.1, 0], [bad, 0.5, 0.5]])
        measured = Measurement(broken, LABELS, {"x=y": np.array([True, True])}, 15, 200, 1)
        verdict = judge_measurement("evaluate_cloud", Gate(thresholds={"accuracy": Threshold(min=0.0)}), measured, BaselineComparison())
        assert (measured.metrics, measured.slices, measured.intervals) == ({}, {}, {})
        assert not verdict.blessed
        assert "1 of 2 answers are no probabilities" in verdict.summary()


def test_an_undefined_metric_fails_its_threshold() -> None:
    measured = Measurement(FIVE, LABELS, {}, 15, 200, 1)
    gate = Gate(thresholds={"recall/*": Threshold(min=0.1)})
    assert judge_measurement("s", gate, measured, BaselineComparison()).failures() == ["recall/c is nan"]


def test_a_baseline_evaluated_again_gets_paired_changes() -> None:
    better, worse = random_predictions(300, skill=3.0), random_predictions(300, skill=1.0)
    candidate = Measurement(worse, LABELS, {}, 15, 500, 1)
    compared = compare(candidate, Answered(BaselineComparison(release="r", how="evaluated"), better))
    change, low, high = compared.changes["accuracy"]
    assert change == pytest.approx(worse.correct.mean() - better.correct.mean())
    assert low < change < high < 0
    verdict = judge_measurement("s", Gate(thresholds={"accuracy": Threshold(max_drop=0.05)}), candidate, compared)
    assert not verdict.blessed
    assert verdict.baseline == "r"


def test_pairing_narrows_the_interval_of_a_change() -> None:
    candidate = random_predictions(300)
    replicates = replicate_metrics(candidate, LABELS, bins=15, resamples=500, seed=1)
    same = paired_changes(metrics_of(candidate, LABELS, 15), metrics_of(candidate, LABELS, 15), replicates, replicates)
    assert same["accuracy"] == (0, 0, 0)


def test_a_baseline_that_answers_nonsense_is_lost() -> None:
    broken = predictions([0, 1], [[math.nan, 0, 0], [0, 1, 0]])
    candidate = Measurement(predictions([0, 1], [[1, 0, 0], [0, 1, 0]]), LABELS, {}, 15, 200, 1)
    compared = compare(candidate, Answered(BaselineComparison(release="r", how="evaluated"), broken))
    assert compared.how == "failed"
    verdict = judge_measurement("s", Gate(thresholds={"accuracy": Threshold(min=0.1, max_drop=0.1)}), candidate, compared)
    assert verdict.failures() == ["the baseline r gives answers that are no probabilities"]


# --- the artifact


def _evaluation() -> Evaluation:
    return Evaluation(
        model="cloud",
        split="test",
        examples=5,
        labels=LABELS,
        examples_digest="d",
        metrics={"accuracy": 0.6},
        intervals={},
        confusion=[],
        slices={},
        verdict=combine("evaluate_cloud", [refuse("x", "y")]),
    )


def test_the_artifact_comes_back_as_it_was(tmp_path: Path) -> None:
    write_evaluation(tmp_path, _evaluation(), FIVE)
    assert read_evaluation(tmp_path) == _evaluation()
    back = read_predictions(tmp_path)
    assert back.keys.tolist() == FIVE.keys.tolist()
    assert np.array_equal(back.probabilities, FIVE.probabilities)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation.json", "predictions.npz"]


def test_a_missing_or_damaged_artifact_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing"):
        read_evaluation(tmp_path)
    with pytest.raises(DataError, match="missing"):
        read_predictions(tmp_path)
    for content in (b"", b"no zip", b"PK\x03\x04 but torn"):
        (tmp_path / "predictions.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"predictions\.npz: is no predictions file"):
            read_predictions(tmp_path)


def test_pickled_or_mismatched_predictions_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "predictions.npz", keys=np.array([{}], dtype=object), labels=np.zeros(1), probabilities=np.zeros((1, 2)))
    with pytest.raises(DataError, match="is no predictions file"):
        read_predictions(tmp_path)
    np.savez(tmp_path / "predictions.npz", keys=np.array(["a"]), labels=np.zeros(2), probabilities=np.zeros((1, 2)))
    with pytest.raises(DataError, match="don't fit each other"):
        read_predictions(tmp_path)
