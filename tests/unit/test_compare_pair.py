"""The pair compared: agreement, the layered policy against brute force, and evaluations that don't belong together."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.compare_pair.compare import compare_answers, compare_pair_models, mcnemar_p
from components.compare_pair.curve import Layers, choose, cross_fitted, policy_curve
from components.compare_pair.joined import Joined, join_evaluations
from components.compare_pair.pair import PairComparison, read_pair
from components.compare_pair.settings import ComparePairSettings
from components.compare_pair.show import in_words
from components.core.errors import DataError, UsageError
from components.core.examples import MANIFEST, Examples, read_examples
from components.core.gate import combine, refuse
from components.core.policy import ALWAYS_ASK, NEVER_ASK, LayeredPolicy
from components.core.record import open_step
from components.core.settings import section
from components.evaluation.evaluation import Evaluation, Predictions, write_evaluation
from components.evaluation.split import read_batches

LABELS = ["daisy", "roses", "tulips"]


def _layers(scores: Sequence[float], mobile: Sequence[int], cloud: Sequence[int]) -> Layers:
    return Layers(np.array(scores, np.float64), np.array(mobile, np.bool_), np.array(cloud, np.bool_))


SIX = _layers([0.3, 0.4, 0.5, 0.6, 0.7, 0.8], mobile=[0, 0, 1, 0, 1, 1], cloud=[1, 1, 0, 1, 1, 1])


# --- the policy


@pytest.mark.parametrize(("score", "who"), [(0.59, "cloud"), (0.6, "mobile"), (1.0, "mobile"), (0.0, "cloud"), (math.nan, "cloud")])
def test_the_phone_answers_from_the_threshold_on(score: float, who: str) -> None:
    assert LayeredPolicy(threshold=0.6).decide(score) == who


def test_both_ends_of_the_policy() -> None:
    assert {LayeredPolicy(threshold=NEVER_ASK).decide(score) for score in (0.0, 0.5, 1.0)} == {"mobile"}
    assert {LayeredPolicy(threshold=ALWAYS_ASK).decide(score) for score in (0.0, 0.5, 1.0)} == {"cloud"}


@pytest.mark.parametrize("threshold", [-0.1, 2.1, math.nan, math.inf])
def test_a_threshold_out_of_range_is_no_policy(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        LayeredPolicy(threshold=threshold)


# --- the curve


def test_the_curve_of_a_hand_worked_example() -> None:
    points = policy_curve(SIX).points()
    assert [threshold for threshold, _, _ in points] == [NEVER_ASK, 0.4, 0.5, 0.6, 0.7, 0.8, ALWAYS_ASK]
    assert [round(accuracy * 6) for _, accuracy, _ in points] == [3, 4, 5, 4, 5, 5, 5]
    assert [round(share * 6) for _, _, share in points] == [0, 1, 2, 3, 4, 5, 6]


_EXAMPLES = st.lists(st.tuples(st.integers(0, 8), st.booleans(), st.booleans()), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(_EXAMPLES)
def test_every_point_is_what_the_policy_really_does(examples: list[tuple[int, bool, bool]]) -> None:
    scores = [score / 8 for score, _, _ in examples]
    layers = _layers(scores, [m for _, m, _ in examples], [c for _, _, c in examples])
    curve = policy_curve(layers)
    for threshold, accuracy, share in curve.points():
        answers = [(LayeredPolicy(threshold=threshold).decide(score), m, c) for score, m, c in examples_of(scores, examples)]
        assert share == pytest.approx(sum(who == "cloud" for who, _, _ in answers) / len(examples))
        assert accuracy == pytest.approx(sum(c if who == "cloud" else m for who, m, c in answers) / len(examples))


@settings(max_examples=200, deadline=None)
@given(_EXAMPLES, st.floats(0, 1))
def test_the_choice_is_the_best_there_is(examples: list[tuple[int, bool, bool]], target: float) -> None:
    scores = [score / 8 for score, _, _ in examples]
    layers = _layers(scores, [m for _, m, _ in examples], [c for _, _, c in examples])
    choice = choose(policy_curve(layers), target)
    every = [(t, layers.correct(t).mean(), (layers.scores < t).mean()) for t in [*np.unique(scores), NEVER_ASK, ALWAYS_ASK]]
    reaching = [share for _, accuracy, share in every if accuracy >= target - 1e-12]
    chosen_share, chosen_accuracy = (layers.scores < choice.threshold).mean(), layers.correct(choice.threshold).mean()
    assert choice.reached is bool(reaching)
    if reaching:
        assert chosen_accuracy >= target - 1e-12
        assert chosen_share == min(reaching)
    else:
        assert chosen_accuracy == max(accuracy for _, accuracy, _ in every)


def examples_of(scores: list[float], examples: list[tuple[int, bool, bool]]) -> list[tuple[float, bool, bool]]:
    return [(score, m, c) for score, (_, m, c) in zip(scores, examples, strict=True)]


def test_the_best_target_is_the_better_models_accuracy_less_the_margin() -> None:
    assert choose(policy_curve(SIX), None).target == pytest.approx(5 / 6)
    assert choose(policy_curve(SIX), None).threshold == 0.5
    assert choose(policy_curve(SIX), None, margin=1 / 6).threshold == 0.4


def test_a_worse_cloud_is_never_asked() -> None:
    worse = Layers(SIX.scores, SIX.cloud, SIX.mobile)
    assert choose(policy_curve(worse), None).threshold == NEVER_ASK


def test_equal_scores_move_together() -> None:
    points = policy_curve(_layers([0.5, 0.5, 0.5], [1, 0, 0], [1, 1, 1])).points()
    assert points == [(NEVER_ASK, pytest.approx(1 / 3), 0.0), (ALWAYS_ASK, 1.0, 1.0)]


def test_cross_fitting_takes_away_what_chance_gave() -> None:
    """Two models of equal, independent skill and a confidence that means nothing: no threshold helps, whatever the curve says."""
    gains, honest = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        layers = Layers(rng.uniform(size=200), rng.uniform(size=200) < 0.7, rng.uniform(size=200) < 0.7)
        curve = policy_curve(layers)
        right, _ = cross_fitted(layers, [f"k{index}" for index in range(200)], 1.0, 0.0, 10)
        gains.append(curve.accuracy.max() - 0.7)
        honest.append(right.mean() - 0.7)
    assert np.mean(gains) > 0.02
    assert abs(np.mean(honest)) < 0.012


def test_cross_fitting_does_not_depend_on_the_order() -> None:
    keys = [f"k{index}" for index in range(6)]
    backwards = Layers(SIX.scores[::-1], SIX.mobile[::-1], SIX.cloud[::-1])
    right, asked = cross_fitted(SIX, keys, None, 0.0, 3)
    other_right, other_asked = cross_fitted(backwards, keys[::-1], None, 0.0, 3)
    assert right.tolist() == other_right[::-1].tolist()
    assert asked.tolist() == other_asked[::-1].tolist()


def test_one_example_is_enough_for_an_answer() -> None:
    right, _ = cross_fitted(_layers([0.5], [0], [1]), ["k"], None, 0.0, 10)
    assert right.tolist() == [True]


# --- the whole comparison


def _write(root: Path, kind: Any, keys: list[str], labels: Sequence[int], rows: Any, *, names: list[str] = LABELS, **changes: Any) -> Path:
    predictions = Predictions(np.array(keys, np.str_), np.array(labels, np.int64), np.array(rows, np.float32))
    facts: dict[str, Any] = {"split": "test", "examples_digest": "digest", "labels": names} | changes
    empty: dict[str, Any] = {"metrics": {}, "intervals": {}, "confusion": [], "slices": {}}
    verdict = combine("evaluate", [refuse("x", "y")])
    write_evaluation(root, Evaluation(model=kind, examples=len(keys), verdict=verdict, **empty, **facts), predictions)
    return root


EXAMPLES = Examples(labels=LABELS, digest="digest", splits={})


def _rows(answers: Any, score: float = 0.8) -> list[list[float]]:
    return [[score if index == answer else (1 - score) / 2 for index in range(3)] for answer in answers]


def _joined(tmp_path: Path, labels: Any, cloud: Any, mobile: Any) -> Joined:
    keys = [f"k{index:03}" for index in range(len(labels))]
    left = _write(tmp_path / "cloud", "cloud", keys, list(labels), cloud)
    return join_evaluations(left, _write(tmp_path / "mobile", "mobile", keys, list(labels), mobile), EXAMPLES)


def _compare(joined: Joined, **changes: Any) -> PairComparison:
    return compare_answers("compare_pair", joined, LABELS, "digest", ComparePairSettings(resamples=200, **changes), 1)


def test_agreement_counts_equal_answers_right_or_wrong(tmp_path: Path) -> None:
    pair = _compare(_joined(tmp_path, [0, 0, 1, 1], _rows([0, 1, 1, 2]), _rows([0, 1, 2, 1])))
    assert pair.agreement == 0.5
    assert {label: found.agreement for label, found in pair.per_class.items()} == {"daisy": 1.0, "roses": 0.0}
    assert pair.matrix == [[1, 0, 0], [0, 1, 1], [0, 1, 0]]
    outcomes = pair.outcomes
    assert (outcomes.both_right, outcomes.only_cloud, outcomes.only_mobile, outcomes.both_wrong) == (1, 1, 1, 1)
    assert pair.cloud_gain == 0


def test_evaluations_are_joined_by_key_not_by_position(tmp_path: Path) -> None:
    left = _write(tmp_path / "cloud", "cloud", ["a", "b", "c"], [0, 1, 2], _rows([0, 1, 2]))
    right = _write(tmp_path / "mobile", "mobile", ["c", "a", "b"], [2, 0, 1], _rows([2, 0, 1]))
    assert _compare(join_evaluations(left, right, EXAMPLES)).agreement == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": ["a", "b", "d"]}, "differ in 2 examples, the first is 'c'"),
        ({"keys": ["a", "b"], "labels": [0, 1], "rows": _rows([0, 1])}, "differ in 1 examples"),
        ({"keys": ["a", "b", "b"]}, "several answers for one key"),
        ({"labels": [0, 1, 1]}, "give 'c' different true classes"),
        ({"split": "validation"}, "evaluated on test, the mobile model on validation"),
        ({"examples_digest": "other"}, "other examples than this run's"),
        ({"names": ["roses", "daisy", "tulips"]}, "has the labels"),
        ({"kind": "cloud"}, "is the evaluation of the cloud model"),
        ({"rows": [[0.5, 0.5]] * 3}, "has 2 probabilities for 3 labels"),
    ],
)
def test_evaluations_that_do_not_belong_together_are_a_data_error(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    left = _write(tmp_path / "cloud", "cloud", ["a", "b", "c"], [0, 1, 2], _rows([0, 1, 2]))
    own: dict[str, Any] = {"kind": "mobile", "keys": ["a", "b", "c"], "labels": [0, 1, 2], "rows": _rows([0, 1, 2])}
    _write(tmp_path / "mobile", **(own | change))
    with pytest.raises(DataError, match=message):
        join_evaluations(left, tmp_path / "mobile", EXAMPLES)


def test_no_examples_are_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="hold no examples"):
        _joined(tmp_path, [], np.zeros((0, 3)), np.zeros((0, 3)))


def test_a_better_cloud_is_asked_where_the_phone_is_unsure(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300).tolist()
    unsure = rng.uniform(size=300) < 0.3
    answers = [(label + (1 if doubt and rng.uniform() < 0.7 else 0)) % 3 for label, doubt in zip(labels, unsure, strict=True)]
    mobile = [_rows([answer], 0.5 if doubt else 0.9)[0] for answer, doubt in zip(answers, unsure, strict=True)]
    pair = _compare(_joined(tmp_path, labels, _rows(labels), mobile))
    policy = pair.policy
    assert policy.threshold == pytest.approx(0.9)
    assert policy.reached
    assert policy.cloud_share == pytest.approx(unsure.mean())
    assert policy.accuracy == policy.expected_accuracy == 1.0
    assert policy.mobile_accuracy < 0.9
    assert policy.cloud_accuracy == 1.0
    assert pair.outcomes.p_value < 1e-6
    assert "Ask the cloud if the phone's confidence is below 0.900" in in_words(policy)


def test_a_worse_cloud_gets_an_honest_answer(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 200)
    pair = _compare(_joined(tmp_path, labels, _rows(rng.integers(0, 3, 200)), _rows(labels)))
    assert (pair.policy.threshold, pair.policy.cloud_share, pair.policy.reached) == (NEVER_ASK, 0.0, True)
    assert pair.cloud_gain < 0
    assert in_words(pair.policy).startswith("Never ask the cloud: the phone alone reaches the target")


def test_a_target_out_of_reach_is_said_and_noise_is_not_taken_for_help(tmp_path: Path) -> None:
    """A much worse cloud and a confidence that means little: some threshold looks better than never asking, by chance."""
    tempted = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 3, 200)
        mobile = [_rows([label if rng.uniform() < 0.9 else (label + 1) % 3], rng.uniform(0.5, 1))[0] for label in labels]
        cloud = _rows([label if rng.uniform() < 0.6 else (label + 1) % 3 for label in labels])
        pair = _compare(_joined(tmp_path / str(seed), labels, cloud, mobile), target_accuracy=0.999)
        assert not pair.policy.reached
        assert pair.policy.threshold == NEVER_ASK
        assert pair.policy.expected_accuracy == pair.policy.accuracy == pair.policy.mobile_accuracy
        assert "no threshold reaches the target of 0.999" in in_words(pair.policy)
        tempted += max(accuracy for _, accuracy, _ in pair.curve) > pair.policy.mobile_accuracy
    assert tempted, "a test that tempts nobody shows nothing"


def test_always_asking_is_chosen_where_only_that_reaches_the_target(tmp_path: Path) -> None:
    pair = _compare(_joined(tmp_path, [0, 1, 2] * 10, _rows([0, 1, 2] * 10), _rows([1, 2, 0] * 10)))
    assert (pair.policy.threshold, pair.policy.cloud_share) == (ALWAYS_ASK, 1.0)
    assert in_words(pair.policy).startswith("Always ask the cloud")


@pytest.mark.parametrize("broken", ["cloud", "mobile"])
def test_answers_that_are_no_probabilities_are_refused(tmp_path: Path, broken: str) -> None:
    rows = {"cloud": _rows([0, 1, 2] * 5), "mobile": _rows([0, 1, 2] * 5)}
    rows[broken][3] = [math.nan, math.nan, math.nan]
    pair = _compare(_joined(tmp_path, [0, 1, 2] * 5, rows["cloud"], rows["mobile"]))
    assert not pair.verdict.blessed
    assert f"1 of the {broken} model's 15 answers are no probabilities" in pair.verdict.summary()
    assert pair.agreement == pytest.approx(14 / 15)
    assert json.loads(pair.model_dump_json()), "JSON without NaN"


@pytest.mark.parametrize(
    ("thresholds", "blessed"),
    [
        ({"agreement": {"min": 0.7}}, True),
        ({"agreement": {"min": 0.8}}, False),
        ({"agreement/*": {"min": 0.7}}, False),
        ({"policy_accuracy": {"min": 0.9}}, True),
        ({"cloud_share": {"max": 0.1}}, False),
        ({"target_reached": {"min": 1}}, True),
        ({"cloud_gain": {"min": 0.5}}, False),
        ({"harmony": {"min": 0.0}}, False),
    ],
)
def test_the_gate_judges_the_pair(tmp_path: Path, thresholds: dict[str, Any], blessed: bool) -> None:
    joined = _joined(tmp_path, [0, 1, 2, 2] * 10, _rows([0, 1, 2, 2] * 10), _rows([0, 1, 2, 0] * 10))
    gate: Any = {"thresholds": thresholds}
    assert _compare(joined, gate=gate).verdict.blessed is blessed


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gate": {}}, "no thresholds are configured"),
        ({"gate": {"thresholds": {"agreement": {"max_drop": 0.1}}}}, "need a baseline"),
        ({"gate": {"thresholds": {"agreement": {"min": 0.5}}, "slices": {"a=b": {"agreement": {"min": 0.5}}}}}, "has no slices"),
        ({"target_accuracy": 1.5}, "an accuracy above 0 and at most 1"),
        ({"target_accuracy": "better"}, "must be `best`"),
        ({"folds": 1}, "greater than or equal to 2"),
    ],
)
def test_bad_settings_name_their_key(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        section(json.dumps({"compare_pair": values}), "compare_pair", ComparePairSettings)
    assert "settings key compare_pair." in str(caught.value)


def test_mcnemar_by_the_textbook() -> None:
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(5, 5) == 1.0
    assert mcnemar_p(0, 6) == pytest.approx(2 / 64)
    assert mcnemar_p(1, 9) == pytest.approx(2 * 11 / 1024)
    assert mcnemar_p(2000, 2400) == pytest.approx(1.8e-9, rel=0.1)


def test_the_step_writes_its_artifact_and_shows_disagreements(tmp_path: Path, tiny_examples: Path) -> None:
    contents = read_examples(tiny_examples)
    assert (tiny_examples / MANIFEST).exists()
    batches = list(read_batches(tiny_examples, "test", 32))
    keys, labels = [key for batch in batches for key in batch.keys], [label for batch in batches for label in batch.labels]
    same: dict[str, Any] = {"names": contents.labels, "examples_digest": contents.digest}
    cloud = _write(tmp_path / "c", "cloud", keys, labels, _rows(labels), **same)
    mobile = _write(tmp_path / "m", "mobile", keys, labels, _rows([0] * len(keys)), **same)
    with open_step("compare_pair", store=str(tmp_path / "store"), run_id="r1", view=str(tmp_path / "view.html")) as record:
        run = {"examples": tiny_examples, "cloud": cloud, "mobile": mobile, "output": tmp_path / "pair"}
        pair = compare_pair_models(record, settings='{"seed": 5}', **run)
    assert read_pair(tmp_path / "pair") == pair
    assert [picture.name for picture in record.record.pictures] == ["policy", "agreement", "disagreements"]
    assert record.record.metrics["agreement"] == pytest.approx(1 / 3)
    assert record.record.verdict == pair.verdict
    assert not pair.verdict.blessed
    assert "data:image/jpeg" in (tmp_path / "view.html").read_text()
    first = (tmp_path / "pair" / "pair.json").read_bytes()
    with open_step("compare_pair", store=str(tmp_path / "store"), run_id="r2") as record:
        compare_pair_models(record, settings='{"seed": 5}', **run)
    assert (tmp_path / "pair" / "pair.json").read_bytes() == first
