"""The verdict rules: Argo Rollouts' table, restated naively and compared on random histories."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.rollout.analysis.rules import (
    Measurement,
    MetricResult,
    Outcome,
    assess,
    due,
    judged,
    tally,
    verdict,
    verdict_of,
)
from serving.rollout.analysis.settings import AnalysisSettings, ErrorRate, Limits

AT = "2026-11-21T06:00:00.000+00:00"
OUTCOMES: list[Outcome] = ["successful", "failed", "inconclusive", "error"]
LETTERS: dict[str, Outcome] = {"s": "successful", "f": "failed", "i": "inconclusive", "e": "error"}
DEFAULTS = Limits(count=3, failure_limit=0, inconclusive_limit=0, consecutive_error_limit=4)


def history(letters: str, metric: str = "error_rate") -> list[Measurement]:
    return [Measurement(metric=metric, outcome=LETTERS[letter], text=f"{metric} {n}", at=AT) for n, letter in enumerate(letters)]


def only(**fields: object) -> AnalysisSettings:
    """Settings in which the error rate alone decides, unless switched on otherwise."""
    off = {"latency_p99_ms": {"max": None}, "latency_p99_vs_stable": {"ratio": None}, "golden_agreement": {"min": None}}
    return AnalysisSettings.model_validate(off | fields)


@pytest.mark.parametrize(
    ("letters", "limits", "state"),
    [
        ("", {}, "running"),
        ("ss", {}, "running"),
        ("sss", {}, "successful"),
        ("f", {}, "failed"),
        ("sf", {"failure_limit": 1}, "running"),
        ("sfs", {"failure_limit": 1}, "successful"),
        ("sff", {"failure_limit": 1}, "failed"),
        ("i", {}, "inconclusive"),
        ("isi", {"inconclusive_limit": 1}, "inconclusive"),
        ("iss", {"inconclusive_limit": 1}, "successful"),
        ("eeee", {}, "running"),
        ("eeeee", {}, "error"),
        ("eeeeseeee", {}, "running"),
        ("e", {"consecutive_error_limit": 0}, "error"),
        ("esese", {"count": 2}, "successful"),
        ("sssf", {}, "successful"),
        ("fsss", {}, "failed"),
        ("s" * 50, {"count": 0}, "running"),
        ("s" * 50 + "f", {"count": 0}, "failed"),
        ("fff", {"failure_limit": 3}, "successful"),
        ("iii", {"inconclusive_limit": 3}, "inconclusive"),
    ],
)
def test_a_metric_is_assessed_as_argo_does(letters: str, limits: dict[str, int], state: str) -> None:
    assert assess(history(letters), Limits(**{**vars(DEFAULTS), **limits})).state == state


def naive(letters: list[Outcome], limits: Limits) -> str:
    """`assessMetricStatus` after each measurement, over plain lists; the first decision stays."""
    for end in range(1, len(letters) + 1):
        seen = letters[:end]
        tail = 0
        while tail < end and seen[end - 1 - tail] == "error":
            tail += 1
        if seen.count("failed") > limits.failure_limit:
            return "failed"
        if seen.count("inconclusive") > limits.inconclusive_limit:
            return "inconclusive"
        if tail > limits.consecutive_error_limit:
            return "error"
        if limits.count > 0 and end - seen.count("error") >= limits.count:
            # The one deviation: nothing but inconclusive measurements is no success.
            return "successful" if {"successful", "failed"} & set(seen) else "inconclusive"
    return "running"


some_limits = st.builds(Limits, st.integers(0, 6), st.integers(0, 3), st.integers(0, 3), st.integers(0, 4))


@settings(deadline=None)
@given(st.lists(st.sampled_from(OUTCOMES), max_size=14), some_limits)
def test_a_metric_is_assessed_as_the_naive_restatement_says(outcomes: list[Outcome], limits: Limits) -> None:
    measurements = [Measurement(metric="m", outcome=outcome, at=AT) for outcome in outcomes]
    result = assess(measurements, limits, metric="m")
    assert result.state == naive(outcomes, limits)
    assert len(result.recent) <= 10


@settings(deadline=None)
@given(st.lists(st.sampled_from(OUTCOMES), max_size=14), st.integers(0, 14))
def test_results_that_are_kept_say_what_all_measurements_say(outcomes: list[Outcome], cut: int) -> None:
    settings = only(count=0, failure_limit=1, inconclusive_limit=1)
    measurements = [Measurement(metric="error_rate", outcome=outcome, at=AT) for outcome in outcomes]
    first = tally(measurements[:cut], settings)
    stored = {name: MetricResult.model_validate_json(result.model_dump_json()) for name, result in first.items()}
    again = tally(measurements[cut:], settings, stored)
    assert again == tally(measurements, settings)
    assert verdict_of(again, settings) == verdict(measurements, settings)


def test_a_long_step_keeps_a_small_state() -> None:
    results: dict[str, MetricResult] = {}
    settings = only(count=0, failure_limit=1)
    for _ in range(300):
        results = tally([judged("error_rate", 0.0, at=AT, high=0.0, details="x" * 1000)], settings, results)
    assert results["error_rate"].successful == 300
    assert len(results["error_rate"].model_dump_json()) < 8000


TWO = {"latency_p99_ms": {"max": 100}}


@pytest.mark.parametrize(
    ("errors", "latency", "outcome"),
    [
        ("sss", "sss", "successful"),
        ("sss", "ss", "running"),
        ("sss", "", "running"),
        ("ss", "f", "failed"),
        ("i", "sss", "inconclusive"),
        ("i", "", "inconclusive"),
        ("i", "eeeee", "error"),
        ("f", "eeeee", "failed"),
        ("f", "i", "failed"),
    ],
)
def test_the_worst_metric_decides(errors: str, latency: str, outcome: str) -> None:
    found = verdict([*history(errors), *history(latency, "latency_p99_ms")], only(**TWO))
    assert found.outcome == outcome
    assert [reason.metric for reason in found.reasons] == ["error_rate", "latency_p99_ms"]
    assert (found.failures() == []) == (outcome in ("successful", "running"))


@pytest.mark.parametrize("latency", ["fff", "i", "eeeee", "sss"])
def test_a_dry_run_metric_never_decides(latency: str) -> None:
    found = verdict([*history("sss"), *history(latency, "latency_p99_ms")], only(**TWO, dry_run=["latency_p99_ms"]))
    assert found.outcome == "successful"
    assert found.reasons[1].passed
    assert found.reasons[1].text.startswith("dry run, decides nothing: latency_p99_ms ")


def test_a_dry_run_metric_is_waited_for_as_in_argo() -> None:
    settings = only(**TWO, dry_run=["latency_p99_ms"])
    assert verdict([*history("sss"), *history("s", "latency_p99_ms")], settings).outcome == "running"
    assert verdict([*history("sss"), *history("s", "latency_p99_ms")], settings, over=True).outcome == "successful"


@pytest.mark.parametrize(("letters", "outcome"), [("", "inconclusive"), ("e", "inconclusive"), ("i", "inconclusive"), ("s", "successful")])
def test_when_the_pause_is_over_a_metric_without_data_is_no_success(letters: str, outcome: str) -> None:
    settings = only(count=0, inconclusive_limit=5)
    assert verdict(history(letters), settings).outcome == "running"
    assert verdict(history(letters), settings, over=True).outcome == outcome


def test_a_first_deployment_leaves_comparisons_out_and_says_so() -> None:
    settings = only(latency_p99_vs_stable={"ratio": 3})
    found = verdict(history("sss"), settings, compare=False)
    assert found.outcome == "successful"
    assert found.reasons[1].text == "latency_p99_vs_stable left out: there is no stable version to compare with"
    assert verdict(history("sss"), settings).outcome == "running"


def test_nothing_but_comparisons_decides_nothing_at_a_first_deployment() -> None:
    settings = only(error_rate={"max": None}, latency_p99_vs_stable={"ratio": 3})
    found = verdict([], settings, compare=False)
    assert found.outcome == "inconclusive"
    assert "no metric decides" in found.failures()[0]


def test_a_reason_says_what_was_measured_how_often_and_what_is_allowed() -> None:
    measurements = [judged("error_rate", 0.0, at=AT, high=0.0), judged("error_rate", 0.25, at=AT, high=0.0, baseline=0.0)]
    (reason,) = verdict(measurements, only()).reasons
    assert reason.text == ("error_rate failed: 2 of 3 measurements, 1 failed, 0 allowed; error_rate 0.25 (must be <= 0); stable 0")
    assert (reason.passed, reason.value) == (False, 0.25)


def test_a_metrics_own_limit_is_stronger_than_the_general_one() -> None:
    settings = only(error_rate=ErrorRate(failure_limit=1))
    assert settings.limits("error_rate") == Limits(3, 1, 0, 4)
    assert verdict(history("fss"), settings).outcome == "successful"


def test_measurements_of_metrics_that_are_off_change_nothing() -> None:
    assert verdict([*history("sss"), *history("f", "latency_p99_ms")], only()).outcome == "successful"


@pytest.mark.parametrize(
    ("value", "bounds", "problem", "outcome"),
    [
        (0.5, {"high": 0.5}, "", "successful"),
        (0.51, {"high": 0.5}, "", "failed"),
        (0.5, {"low": 0.5}, "", "successful"),
        (0.49, {"low": 0.5}, "", "failed"),
        (0.5, {}, "", "successful"),
        (math.nan, {"high": 0.5}, "", "inconclusive"),
        (None, {"low": 0.5}, "", "inconclusive"),
        (math.inf, {"high": 0.5}, "", "failed"),
        (math.inf, {"low": 0.5}, "", "inconclusive"),
        (0.1, {"high": 0.5}, "pod b does not answer", "error"),
        (0.9, {"high": 0.5}, "pod b does not answer", "failed"),
        (None, {"high": 0.5}, "pod b does not answer", "error"),
    ],
)
def test_a_value_is_judged(value: float | None, bounds: dict[str, float], problem: str, outcome: str) -> None:
    made = judged("m", value, at=AT, problem=problem, no_data="nobody asked", low=bounds.get("low"), high=bounds.get("high"))
    assert made.outcome == outcome
    assert Measurement.model_validate_json(made.model_dump_json()) == made
    assert made.value == (value if value is not None and math.isfinite(value) else None)


def test_measurements_are_due_after_the_delay_and_then_at_intervals() -> None:
    began = datetime(2026, 11, 21, 6, tzinfo=UTC)
    settings = only(initial_delay=30, interval=10)
    assert due(settings, began, None) - began == timedelta(seconds=30)
    assert due(settings, began, began + timedelta(seconds=31)) - began == timedelta(seconds=41)
