"""The gate refuses whatever it can't be sure of, and says why."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from components.core.errors import UsageError
from components.core.gate import FIRST_RELEASE, Gate, Threshold, Verdict, absolute_checks, at_most, combine, judge, refuse

GATE = Gate(thresholds={"accuracy": Threshold(min=0.8, max_drop=0.02)})


def _gate(**thresholds: dict[str, float]) -> Gate:
    return Gate.model_validate({"thresholds": thresholds})


def _sliced(pattern: str, *, least: int = 10, **bounds: float) -> Gate:
    return Gate.model_validate({"slices": {pattern: {"accuracy": bounds}}, "min_slice_examples": least})


# --- absolute bounds


@pytest.mark.parametrize(("value", "blessed"), [(0.79, False), (0.8, True), (0.81, True)])
def test_a_minimum_includes_its_bound(value: float, blessed: bool) -> None:
    assert judge("s", _gate(accuracy={"min": 0.8}), {"accuracy": value}).blessed is blessed


@pytest.mark.parametrize(("value", "blessed"), [(0.09, True), (0.1, True), (0.11, False)])
def test_a_maximum_includes_its_bound(value: float, blessed: bool) -> None:
    assert judge("s", _gate(ece={"max": 0.1}), {"ece": value}).blessed is blessed


def test_both_bounds_are_checked() -> None:
    verdict = judge("s", _gate(share={"min": 0.1, "max": 0.2}), {"share": 0.3})
    assert [(r.passed, r.bound) for r in verdict.reasons if r.metric == "share"] == [(True, 0.1), (False, 0.2)]


def test_one_failure_is_enough() -> None:
    verdict = judge("s", _gate(a={"min": 0.5}, b={"min": 0.5}), {"a": 0.9, "b": 0.1})
    assert verdict.failures() == ["b 0.1 (must be >= 0.5)"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("bound", ["min", "max"])
def test_a_number_that_is_none_fails_either_bound(value: float, bound: str) -> None:
    verdict = judge("s", _gate(accuracy={bound: 0.5}), {"accuracy": value})
    assert not verdict.blessed
    assert f"accuracy is {value}" in verdict.summary()


def test_a_missing_metric_fails_and_the_nearest_name_is_offered() -> None:
    verdict = judge("s", _gate(acuracy={"max": 2}), {"accuracy": 0.9})
    assert verdict.failures() == ["acuracy is missing (did you mean accuracy?)"]


def test_a_metric_that_travelled_as_null_is_missing() -> None:
    metrics: Any = {"accuracy": None}
    assert judge("s", _gate(accuracy={"max": 2}), metrics).failures() == ["accuracy is missing"]


def test_no_metrics_at_all_fail() -> None:
    assert not judge("s", GATE, {}).blessed


# --- families of metrics


def test_a_family_checks_every_member() -> None:
    gate = _gate(**{"recall/*": {"min": 0.5}})
    verdict = judge("s", gate, {"recall/a": 0.9, "recall/b": 0.4, "precision/b": 0.1})
    assert verdict.failures() == ["recall/b 0.4 (must be >= 0.5)"]


def test_an_undefined_member_of_a_family_fails() -> None:
    assert not judge("s", _gate(**{"recall/*": {"min": 0.5}}), {"recall/a": 0.9, "recall/b": math.nan}).blessed


def test_a_family_without_members_fails() -> None:
    assert judge("s", _gate(**{"recall/*": {"min": 0.5}}), {"accuracy": 1.0}).failures() == ["recall/* is missing"]


def test_a_member_that_only_the_baseline_has_fails() -> None:
    verdict = judge("s", _gate(**{"recall/*": {"min": 0.5}}), {"recall/a": 0.9}, baseline={"recall/a": 0.9, "recall/b": 0.9})
    assert verdict.failures() == ["recall/b is missing (did you mean recall/a?)"]


# --- configuration


@pytest.mark.parametrize("gate", [Gate(), Gate(slices={"source=web": {}})])
def test_no_threshold_is_a_configuration_error(gate: Gate) -> None:
    with pytest.raises(UsageError, match=r"s\.gate: no thresholds are configured"):
        judge("s", gate, {"accuracy": 1.0})


def test_a_threshold_without_a_bound_is_a_configuration_error() -> None:
    with pytest.raises(UsageError, match="accuracy: the threshold has no bound"):
        judge("s", _gate(accuracy={}), {"accuracy": 1.0})


def test_a_slice_threshold_without_a_bound_is_a_configuration_error() -> None:
    with pytest.raises(UsageError, match="source=web: accuracy: the threshold has no bound"):
        judge("s", _sliced("source=web"), {}, slices={"source=web": {"examples": 99, "accuracy": 1}})


@pytest.mark.parametrize("name", ["web", "=web", "source=", "*"])
def test_a_slice_must_be_column_and_value(name: str) -> None:
    with pytest.raises(UsageError, match="is no slice"):
        judge("s", _sliced(name, min=0.1), {}, slices={name: {"examples": 99, "accuracy": 1}})


@pytest.mark.parametrize("bounds", [{"min": math.nan}, {"max": math.inf}, {"max_drop": -0.1}, {"max_drop": math.nan}, {"mim": 0.5}])
def test_bounds_that_can_refuse_nothing_or_everything_are_errors(bounds: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Threshold.model_validate(bounds)


def test_a_minimum_above_the_maximum_is_an_error() -> None:
    with pytest.raises(ValidationError, match=r"min 0\.9 is above max 0\.1"):
        Threshold(min=0.9, max=0.1)


# --- the baseline


def test_a_first_release_is_judged_by_absolute_thresholds_and_says_so() -> None:
    verdict = judge("s", GATE, {"accuracy": 0.81})
    assert verdict.blessed
    assert FIRST_RELEASE in [r.text for r in verdict.reasons]
    assert verdict.baseline == ""


def test_a_first_release_that_nothing_absolute_judges_is_refused() -> None:
    verdict = judge("s", _gate(accuracy={"max_drop": 0.02}), {"accuracy": 0.99})
    assert not verdict.blessed
    assert "none is configured" in verdict.summary()


@pytest.mark.parametrize(("value", "blessed"), [(0.95, True), (0.88, True), (0.879, False)])
def test_a_drop_is_measured_from_the_baseline(value: float, blessed: bool) -> None:
    verdict = judge("s", GATE, {"accuracy": value}, baseline={"accuracy": 0.9}, baseline_id="abc")
    assert verdict.blessed is blessed
    assert verdict.baseline == "abc"
    assert FIRST_RELEASE not in verdict.summary()


@pytest.mark.parametrize(("value", "blessed"), [(0.05, True), (0.12, True), (0.13, False)])
def test_a_rise_is_measured_from_the_baseline(value: float, blessed: bool) -> None:
    assert judge("s", _gate(ece={"max_rise": 0.02}), {"ece": value}, baseline={"ece": 0.1}).blessed is blessed


@pytest.mark.parametrize("drop", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("before", [0.9, 0.7, 0.33])
def test_a_drop_of_exactly_the_bound_passes_in_spite_of_rounding(before: float, drop: float) -> None:
    assert judge("s", _gate(accuracy={"max_drop": drop}), {"accuracy": before - drop}, baseline={"accuracy": before}).blessed


def test_the_absolute_bound_holds_beside_a_worse_baseline() -> None:
    assert not judge("s", GATE, {"accuracy": 0.7}, baseline={"accuracy": 0.5}).blessed


@pytest.mark.parametrize("baseline", [{}, {"accuracy": math.nan}, {"accuracy": None}])
def test_a_baseline_without_the_metric_fails_a_relative_threshold(baseline: Any) -> None:
    verdict = judge("s", GATE, {"accuracy": 0.99}, baseline=baseline)
    assert verdict.failures() == ["accuracy: the baseline has no such metric to compare with"]


def test_a_baseline_without_the_metric_does_not_matter_to_an_absolute_threshold() -> None:
    assert judge("s", _gate(accuracy={"min": 0.8}), {"accuracy": 0.9}, baseline={}).blessed


def test_a_lost_baseline_fails_relative_thresholds_with_its_reason() -> None:
    verdict = judge("s", GATE, {"accuracy": 0.99}, no_baseline="the file is gone", baseline_lost=True)
    assert verdict.failures() == ["the file is gone"]


def test_a_lost_baseline_is_only_mentioned_where_nothing_needs_it() -> None:
    verdict = judge("s", _gate(accuracy={"min": 0.8}), {"accuracy": 0.9}, no_baseline="the file is gone", baseline_lost=True)
    assert verdict.blessed
    assert verdict.reasons[-1].text == "the file is gone"


# --- slices


def test_a_slice_is_judged_by_its_own_metrics() -> None:
    slices = {"source=web": {"examples": 50, "accuracy": 0.4}}
    verdict = judge("s", _sliced("source=web", min=0.5), {"accuracy": 0.99}, slices=slices)
    assert verdict.failures() == ["source=web accuracy 0.4 (must be >= 0.5)"]
    assert [r.slice for r in verdict.reasons if not r.passed] == ["source=web"]


@pytest.mark.parametrize("pattern", ["source=web", "source=*"])
@pytest.mark.parametrize("slices", [None, {}, {"size=small": {"examples": 99, "accuracy": 1.0}}])
def test_a_missing_slice_fails(pattern: str, slices: Any) -> None:
    assert judge("s", _sliced(pattern, min=0.1), {}, slices=slices).failures() == [f"slice {pattern} has no examples"]


@pytest.mark.parametrize(("count", "blessed"), [(9, False), (10, True), (0, False), (math.nan, False)])
def test_a_slice_needs_enough_examples(count: float, blessed: bool) -> None:
    slices = {"source=web": {"examples": count, "accuracy": 1.0}}
    assert judge("s", _sliced("source=web", min=0.5), {}, slices=slices).blessed is blessed


def test_a_slice_that_does_not_say_how_many_examples_it_has_fails() -> None:
    assert not judge("s", _sliced("source=web", min=0.5), {}, slices={"source=web": {"accuracy": 1.0}}).blessed


def test_nan_in_a_slice_fails() -> None:
    assert not judge("s", _sliced("source=web", max=1), {}, slices={"source=web": {"examples": 99, "accuracy": math.nan}}).blessed


def test_a_pattern_judges_each_value_of_its_column_only() -> None:
    slices = {f"source={name}": {"examples": 50, "accuracy": value} for name, value in (("web", 0.9), ("phone", 0.3), ("film", 0.2))}
    slices["sources=web"] = {"examples": 50, "accuracy": 0.0}
    verdict = judge("s", _sliced("source=*", min=0.5), {}, slices=slices)
    assert [r.slice for r in verdict.reasons if not r.passed] == ["source=film", "source=phone"]


def test_a_slice_drop_is_measured_from_the_same_slice_of_the_baseline() -> None:
    slices = {"source=web": {"examples": 50, "accuracy": 0.8}}
    gate = _sliced("source=web", max_drop=0.05)
    assert judge("s", gate, {}, slices=slices, baseline={}, baseline_slices={"source=web": {"accuracy": 0.84}}).blessed
    assert not judge("s", gate, {}, slices=slices, baseline={}, baseline_slices={"source=web": {"accuracy": 0.9}}).blessed


@pytest.mark.parametrize("before", [None, {}, {"source=phone": {"accuracy": 0.5}}])
@pytest.mark.parametrize("pattern", ["source=web", "source=*"])
def test_a_baseline_without_the_slice_fails_a_relative_slice_threshold(before: Any, pattern: str) -> None:
    slices = {"source=web": {"examples": 50, "accuracy": 0.99}}
    verdict = judge("s", _sliced(pattern, max_drop=0.05), {}, slices=slices, baseline={"accuracy": 0.9}, baseline_slices=before)
    assert "source=web accuracy: the baseline has no such metric to compare with" in verdict.failures()


def test_a_slice_that_only_the_baseline_has_fails_a_pattern() -> None:
    slices = {"source=web": {"examples": 50, "accuracy": 0.9}}
    before = {"source=web": {"accuracy": 0.9}, "source=film": {"accuracy": 0.9}}
    verdict = judge("s", _sliced("source=*", max_drop=0.05), {}, slices=slices, baseline={}, baseline_slices=before)
    assert "slice source=film has no examples" in verdict.failures()


# --- the pieces


def test_a_gate_that_knows_no_baseline_refuses_relative_thresholds() -> None:
    with pytest.raises(UsageError, match="need a baseline"):
        absolute_checks("s", GATE, {"accuracy": 1.0})
    assert [r.passed for r in absolute_checks("s", _gate(accuracy={"min": 0.8}), {"accuracy": 0.7})] == [False]


def test_nothing_checked_is_not_blessed() -> None:
    verdict = combine("s", [])
    assert not verdict.blessed
    assert verdict.summary() == "NOT BLESSED: nothing was checked"


@pytest.mark.parametrize(
    ("value", "bound", "passed"),
    [(1.0, 1.0, True), (1.1, 1.0, False), (math.nan, 1.0, False), (math.inf, 1.0, False), (1.0, math.nan, False)],
)
def test_a_budget_includes_its_bound_and_refuses_what_is_no_number(value: float, bound: float, passed: bool) -> None:
    assert at_most("p99", value, bound, " ms").passed is passed


def test_a_budget_names_its_unit() -> None:
    assert at_most("p99", 12.5, 10, " ms").text == "p99 12.5 ms (must be <= 10 ms)"


@pytest.mark.parametrize("value", [math.nan, 0.5])
def test_a_verdict_survives_json(value: float) -> None:
    verdict = combine("s", [at_most("p99", value, 1.0), refuse("x", "broken"), *judge("s", GATE, {"accuracy": value}).reasons], "abc")
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict
