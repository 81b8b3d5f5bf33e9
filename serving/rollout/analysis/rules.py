"""Measurements, and the verdict over them: Argo Rollouts' rules.

Source: argo-rollouts analysis/analysis.go, `assessMetricStatus` and `asssessRunStatus` (1.8). Every measurement is counted as it comes,
and the first decision about a metric stays: failed > failureLimit → failed; inconclusive > inconclusiveLimit → inconclusive;
consecutive errors > consecutiveErrorLimit → error; count reached (errors don't count) → successful. The analysis ends with the worst
metric as soon as one went wrong (failed is worse than error, error than inconclusive), and is successful when all are. Metrics in
`dry_run` are waited for but never decide.

Three things are stricter than there. A metric without data is never successful: when the time is over, Argo takes a metric that was
never measured as successful, here it is inconclusive. So is one that was only ever measured inconclusively. And NaN is no data.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from components.core.gate import Reason
from serving.rollout.analysis.settings import AnalysisSettings, Limits

Outcome = Literal["successful", "failed", "inconclusive", "error"]
State = Literal["successful", "running", "inconclusive", "error", "failed"]
_WORSE: tuple[State, ...] = get_args(State)
"""From best to worst; a metric that still runs is outdone only by one that went wrong."""
_WRONG = ("inconclusive", "error", "failed")
_RECENT = 10
"""Measurements that are kept of each metric, as in Argo: the state of a rollout must stay small."""
_LONGEST = 400
"""Characters of a text: it may quote what a server answered."""


class Measurement(BaseModel):
    """One look at one metric."""

    model_config = ConfigDict(frozen=True)

    metric: str
    outcome: Outcome
    value: float | None = None
    """The candidate's; None if there is none, or if it is no finite number."""
    baseline: float | None = None
    """The stable version's in the same window, where there is one."""
    text: str = ""
    at: str
    """UTC, ISO 8601."""


class MetricResult(BaseModel):
    """What became of one metric so far: Argo's counters, and the latest measurements."""

    model_config = ConfigDict(frozen=True)

    metric: str
    state: State = "running"
    successful: int = 0
    failed: int = 0
    inconclusive: int = 0
    error: int = 0
    consecutive_error: int = 0
    recent: list[Measurement] = []

    def counted(self) -> int:
        """The measurements that count towards `count`."""
        return self.successful + self.failed + self.inconclusive

    def has_data(self) -> bool:
        """Whether it was ever measured within or outside its bounds."""
        return self.successful + self.failed > 0


class Verdict(BaseModel):
    """What the measurements say together, with one reason for each metric."""

    outcome: State
    reasons: list[Reason]

    def failures(self) -> list[str]:
        """The texts of the metrics that went wrong."""
        return [reason.text for reason in self.reasons if not reason.passed]


def judged(
    metric: str,
    value: float | None,
    *,
    at: str,
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
    baseline: float | None = None,
    problem: str = "",
    no_data: str = "there is no data",
    details: str = "",
) -> Measurement:
    """The measurement of a value that must lie within `low` ≤ value ≤ `high`.

    A bound that is violated decides even if there was a `problem`, such as a pod that did not answer: what was seen is bad enough. Without
    that a problem is an error, and no value, NaN or an infinite one (a division by nothing) is inconclusive.
    """
    number = math.nan if value is None else value
    if (low is not None and number < low) or (high is not None and number > high):
        outcome, text = "failed", _within(metric, number, low, high, unit)
    elif problem:
        outcome, text = "error", f"{metric}: {problem}"
    elif not math.isfinite(number):
        outcome, text = "inconclusive", f"{metric}: {no_data}" if math.isnan(number) else f"{metric} is {number}, which is no measurement"
    else:
        outcome, text = "successful", _within(metric, number, low, high, unit)
    beside = f"; stable {baseline:.4g}{unit}" if baseline is not None and math.isfinite(baseline) else ""
    text = f"{text}{beside}{f'; {details}' if details else ''}"[:_LONGEST]
    return Measurement(metric=metric, outcome=outcome, value=_finite(value), baseline=_finite(baseline), text=text, at=at)


def assess(measurements: Sequence[Measurement], limits: Limits, *, metric: str = "") -> MetricResult:
    """What became of one metric by its measurements, oldest first; later ones than the deciding one change nothing."""
    result = MetricResult(metric=metric or (measurements[0].metric if measurements else ""))
    for measurement in measurements:
        result = count_in(result, measurement, limits)
    return result


def count_in(result: MetricResult, measurement: Measurement, limits: Limits) -> MetricResult:
    """The result with one more measurement; a result that is decided stays as it is."""
    if result.state != "running":
        return result
    outcome = measurement.outcome
    consecutive = result.consecutive_error + 1 if outcome == "error" else 0
    update = {outcome: getattr(result, outcome) + 1, "consecutive_error": consecutive}
    counted = result.model_copy(update=update | {"recent": [*result.recent, measurement][-_RECENT:]})
    return counted.model_copy(update={"state": _state(counted, limits)})


def _state(result: MetricResult, limits: Limits) -> State:
    if result.failed > limits.failure_limit:
        return "failed"
    if result.inconclusive > limits.inconclusive_limit:
        return "inconclusive"
    if result.consecutive_error > limits.consecutive_error_limit:
        return "error"
    if limits.count and result.counted() >= limits.count:
        return "successful" if result.has_data() else "inconclusive"
    return "running"


def tally(
    measurements: Iterable[Measurement], settings: AnalysisSettings, before: Mapping[str, MetricResult] | None = None
) -> dict[str, MetricResult]:
    """The result of every metric that is on, with these measurements added (in their order) to the results `before`.

    Keeping results instead of all measurements keeps a state small, however long a step lasts. Measurements of metrics that the settings
    don't know are left out.
    """
    results = {name: (before or {}).get(name, MetricResult(metric=name)) for name in settings.metrics()}
    for measurement in measurements:
        if measurement.metric in results:
            name = measurement.metric
            results[name] = count_in(results[name], measurement, settings.limits(name))
    return results


def verdict(measurements: Iterable[Measurement], settings: AnalysisSettings, *, compare: bool = True, over: bool = False) -> Verdict:
    """The verdict on measurements, oldest first; see `verdict_of`."""
    return verdict_of(tally(measurements, settings), settings, compare=compare, over=over)


def verdict_of(results: Mapping[str, MetricResult], settings: AnalysisSettings, *, compare: bool = True, over: bool = False) -> Verdict:
    """The verdict on the metrics' results.

    `compare=False` at a first deployment: metrics that need a stable version are left out, and the verdict says so. `over=True` when no
    more measurements will be taken (with `count: 0`, when the step's pause is over): nothing stays "running".
    """
    left_out = set() if compare else settings.comparisons()
    states: list[State] = []
    reasons = []
    for name in settings.metrics():
        if name in left_out:
            reasons.append(Reason(metric=name, passed=True, text=f"{name} left out: there is no stable version to compare with"))
            continue
        result = _ended(results.get(name, MetricResult(metric=name)), over=over)
        dry = name in settings.dry_run
        reasons.append(_reason(result, settings.limits(name), dry=dry))
        states.append(_undecisive(result.state) if dry else result.state)
    if set(settings.metrics()) <= left_out | set(settings.dry_run):
        text = "no metric decides: all of them compare with a stable version, and there is none"
        return Verdict(outcome="inconclusive", reasons=[*reasons, Reason(metric="analysis", passed=False, text=text)])
    return Verdict(outcome=max(states, key=_WORSE.index), reasons=reasons)


def due(settings: AnalysisSettings, began: datetime, last: datetime | None) -> datetime:
    """When the next measurement is to be taken, for a step that began then and was last measured then."""
    return began + timedelta(seconds=settings.initial_delay) if last is None else last + timedelta(seconds=settings.interval)


def _ended(result: MetricResult, *, over: bool) -> MetricResult:
    if not over or result.state != "running":
        return result
    return result.model_copy(update={"state": "successful" if result.has_data() else "inconclusive"})


def _undecisive(state: State) -> State:
    return "running" if state == "running" else "successful"


def _reason(result: MetricResult, limits: Limits, *, dry: bool) -> Reason:
    wrong = result.state in _WRONG
    shown = [each for each in result.recent if each.outcome == result.state] if wrong else result.recent
    last = shown[-1] if shown else None
    text = f"{result.metric} {result.state}: {_counts(result, limits)}" + (f"; {last.text}" if last else "")
    text = f"dry run, decides nothing: {text}" if dry else text
    return Reason(metric=result.metric, passed=dry or not wrong, value=last.value if last else None, text=text)


def _counts(result: MetricResult, limits: Limits) -> str:
    allowed = {
        "failed": f"{result.failed} failed, {limits.failure_limit} allowed",
        "inconclusive": f"{result.inconclusive} inconclusive, {limits.inconclusive_limit} allowed",
        "error": f"{result.consecutive_error} errors in a row, {limits.consecutive_error_limit} allowed",
    }
    measured = f"{result.counted()} of {limits.count} measurements" if limits.count else f"{result.counted()} measurements"
    return f"{measured}, {allowed[result.state]}" if result.state in allowed else measured


def _within(metric: str, value: float, low: float | None, high: float | None, unit: str) -> str:
    bounds = [f"{op} {bound:g}{unit}" for op, bound in ((">=", low), ("<=", high)) if bound is not None]
    return f"{metric} {value:.4g}{unit}" + (f" (must be {' and '.join(bounds)})" if bounds else "")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
