"""The gate: thresholds in, a verdict with reasons out; always written, never silent.

Rules (docs/gates.md): no thresholds configured is a configuration error; a missing metric, NaN, a missing slice or a slice with too few
examples fails; without a baseline (a first release) only absolute thresholds apply, the verdict says so, and there must be one; with
a baseline, a relative threshold fails if the baseline lacks the metric or the slice, or can't be had at all.
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from components.core.errors import UsageError

FIRST_RELEASE = "first release: no baseline, only absolute thresholds apply"
_TOLERANCE = 1e-9
"""Differences of decimals such as 0.90 - 0.88 must not fail a bound of 0.02 by rounding."""

Metrics = Mapping[str, float]


class Threshold(BaseModel):
    """Bounds of one metric. `min`/`max` are absolute; `max_drop`/`max_rise` compare with the baseline's value."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min: float | None = Field(default=None, description="The metric must be at least this.")
    max: float | None = Field(default=None, description="The metric must be at most this.")
    max_drop: float | None = Field(default=None, ge=0, description="The metric may be at most this much below the baseline's.")
    max_rise: float | None = Field(default=None, ge=0, description="The metric may be at most this much above the baseline's.")

    @model_validator(mode="after")
    def _satisfiable(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}: nothing could pass")
        return self

    def is_empty(self) -> bool:
        """Whether no bound is set at all."""
        return not self.is_absolute() and not self.is_relative()

    def is_absolute(self) -> bool:
        """Whether a bound holds without a baseline."""
        return self.min is not None or self.max is not None

    def is_relative(self) -> bool:
        """Whether a bound needs a baseline."""
        return self.max_drop is not None or self.max_rise is not None


class Gate(BaseModel):
    """The thresholds of one step, over all examples and per slice."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    thresholds: dict[str, Threshold] = Field(
        default={}, description="Metric name (or `family/*` for each one measured, as in `recall/*`) → bounds, over the whole split."
    )
    slices: dict[str, dict[str, Threshold]] = Field(
        default={}, description="Slice (`column=value`, or `column=*` for each value seen) → metric → bounds."
    )
    min_slice_examples: int = Field(default=10, ge=1, description="A gated slice with fewer examples fails: its metrics mean nothing.")

    def named_thresholds(self) -> list[tuple[str, Threshold]]:
        """Every threshold with its name: `metric`, or `slice: metric`."""
        sliced = [(f"{name}: {metric}", t) for name, thresholds in self.slices.items() for metric, t in thresholds.items()]
        return [*self.thresholds.items(), *sliced]

    def is_relative(self) -> bool:
        """Whether any threshold needs a baseline."""
        return any(threshold.is_relative() for _, threshold in self.named_thresholds())

    def is_absolute(self) -> bool:
        """Whether any threshold holds without a baseline."""
        return any(threshold.is_absolute() for _, threshold in self.named_thresholds())


class Reason(BaseModel):
    """One check of a gate and how it came out."""

    metric: str
    passed: bool
    text: str
    slice: str = ""
    value: float | None = None
    bound: float | None = None


class Verdict(BaseModel):
    """Blessed or not, and every reason for it."""

    step: str
    blessed: bool
    reasons: list[Reason] = []
    baseline: str = ""
    """Release id of the baseline that was compared with; empty for a first release."""

    def failures(self) -> list[str]:
        """The texts of the checks that failed."""
        return [reason.text for reason in self.reasons if not reason.passed]

    def summary(self) -> str:
        """One line: the verdict, and why if it is a refusal."""
        if self.blessed:
            return f"BLESSED ({len(self.reasons)} checks)"
        return "NOT BLESSED: " + ("; ".join(self.failures()) or "nothing was checked")


def judge(
    step: str,
    gate: Gate,
    metrics: Metrics,
    *,
    slices: Mapping[str, Metrics] | None = None,
    baseline: Metrics | None = None,
    baseline_slices: Mapping[str, Metrics] | None = None,
    baseline_id: str = "",
    no_baseline: str = FIRST_RELEASE,
    baseline_lost: bool = False,
) -> Verdict:
    """Judge `metrics` (and `slices`: `column=value` → metrics incl. `examples`) by `gate`.

    Without a `baseline` the verdict quotes `no_baseline`, the reason why there is none; with `baseline_lost` there should be one, and
    relative thresholds fail. Raises `UsageError` if the gate has no threshold at all, or one without a bound.
    """
    check_gate(step, gate)
    if baseline is None:
        missing = _without_baseline(gate, no_baseline, baseline_lost)
        reasons = [*_checks(gate, metrics, slices or {}, None, None), missing]
    else:
        reasons = _checks(gate, metrics, slices or {}, baseline, baseline_slices or {})
    return combine(step, reasons, baseline_id)


def absolute_checks(step: str, gate: Gate, metrics: Metrics) -> list[Reason]:
    """The checks of a gate that knows no baseline; `UsageError` if it has no threshold, or one that needs a baseline."""
    check_gate(step, gate)
    for name, threshold in gate.named_thresholds():
        if threshold.is_relative():
            raise UsageError(
                "max_drop and max_rise need a baseline, and this gate has none", where=f"{step}.gate: {name}", fix="Set min or max"
            )
    return _checks(gate, metrics, {}, None, None)


def combine(step: str, reasons: Iterable[Reason], baseline_id: str = "") -> Verdict:
    """The verdict of a list of checks: blessed only if there is one and none failed."""
    checks = list(reasons)
    return Verdict(step=step, blessed=bool(checks) and all(r.passed for r in checks), reasons=checks, baseline=baseline_id)


def refuse(metric: str, text: str) -> Reason:
    """A check that failed for a reason which is no number."""
    return Reason(metric=metric, passed=False, text=text)


def at_most(metric: str, value: float, bound: float, unit: str = "") -> Reason:
    """The check of a budget: `value` ≤ `bound`; NaN fails, of either."""
    passed = math.isfinite(value) and value <= bound
    return Reason(metric=metric, passed=passed, value=_finite(value), bound=_finite(bound), text=_text(metric, value, "<=", bound, unit))


def check_gate(step: str, gate: Gate) -> None:
    """Raise `UsageError` unless the gate can refuse something and every slice is written `column=value`."""
    thresholds = gate.named_thresholds()
    if not thresholds:
        raise UsageError(
            "no thresholds are configured", where=f"{step}.gate", fix="Set at least one, for example thresholds: {accuracy: {min: 0.8}}"
        )
    for name, threshold in thresholds:
        if threshold.is_empty():
            raise UsageError("the threshold has no bound", where=f"{step}.gate: {name}", fix="Set min, max, max_drop or max_rise")
    for name in gate.slices:
        column, separator, value = name.partition("=")
        if not (column and separator and value):
            raise UsageError(
                f"'{name}' is no slice", where=f"{step}.gate.slices", fix="Write column=value, or column=* for each value seen"
            )


def _without_baseline(gate: Gate, why: str, lost: bool) -> Reason:
    if lost and gate.is_relative():
        return refuse("baseline", why)
    if gate.is_absolute():
        return Reason(metric="baseline", passed=True, text=why)
    # Blessing a model that nothing was asked of would be no verdict at all.
    return refuse("baseline", f"{why}, and none is configured: set a min or a max")


def _checks(
    gate: Gate, metrics: Metrics, slices: Mapping[str, Metrics], baseline: Metrics | None, baseline_slices: Mapping[str, Metrics] | None
) -> list[Reason]:
    reasons = _check_all(gate.thresholds, metrics, baseline, "")
    for pattern, thresholds in gate.slices.items():
        reasons += _check_slices(pattern, thresholds, gate.min_slice_examples, slices, baseline_slices)
    return reasons


def _check_slices(
    pattern: str,
    thresholds: Mapping[str, Threshold],
    min_examples: int,
    slices: Mapping[str, Metrics],
    baseline: Mapping[str, Metrics] | None,
) -> list[Reason]:
    names = _matches(pattern, "=*", slices)
    if baseline is not None and pattern.endswith("=*"):
        # A value that only the baseline was measured on is a missing slice too.
        names = sorted({*names, *_matches(pattern, "=*", baseline)})
    if not names:
        return [Reason(metric="examples", slice=pattern, passed=False, text=f"slice {pattern} has no examples")]
    reasons = []
    for name in names:
        before = baseline.get(name, {}) if baseline is not None else None
        reasons += [*_check_count(name, slices.get(name, {}), min_examples), *_check_all(thresholds, slices.get(name, {}), before, name)]
    return reasons


def _check_count(name: str, metrics: Metrics, min_examples: int) -> list[Reason]:
    count = _number(metrics, "examples")
    if count >= min_examples:
        return []
    text = f"slice {name} has {count:g} examples, needs {min_examples}" if math.isfinite(count) else f"slice {name} has no examples"
    return [Reason(metric="examples", slice=name, passed=False, value=_finite(count), bound=min_examples, text=text)]


def _check_all(thresholds: Mapping[str, Threshold], metrics: Metrics, baseline: Metrics | None, where: str) -> list[Reason]:
    reasons = []
    for pattern, bounds in thresholds.items():
        # What only the baseline has is missing too; a pattern that nothing matches stays as it is, and fails as a missing metric.
        for metric in _matches(pattern, "/*", {**metrics, **(baseline or {})}) or [pattern]:
            reasons += _check(metric, bounds, metrics, baseline, where)
    return reasons


def _matches(pattern: str, wildcard: str, names: Iterable[str]) -> list[str]:
    if pattern.endswith(wildcard):
        return sorted(name for name in names if name.startswith(pattern.removesuffix("*")))
    return [name for name in names if name == pattern]


def _check(metric: str, bounds: Threshold, metrics: Metrics, baseline: Metrics | None, where: str) -> list[Reason]:
    label = f"{where} {metric}".strip()
    value = _number(metrics, metric)
    if not math.isfinite(value):
        return [Reason(metric=metric, slice=where, passed=False, text=f"{label} {_why_missing(metric, metrics)}")]
    reasons = []
    if bounds.min is not None:
        reasons.append(_reason(metric, where, label, value, ">=", bounds.min))
    if bounds.max is not None:
        reasons.append(_reason(metric, where, label, value, "<=", bounds.max))
    if baseline is not None and bounds.is_relative():
        reasons += _check_change(metric, where, label, value, bounds, _number(baseline, metric))
    return reasons


def _check_change(metric: str, where: str, label: str, value: float, bounds: Threshold, before: float) -> list[Reason]:
    if not math.isfinite(before):
        text = f"{label}: the baseline has no such metric to compare with"
        return [Reason(metric=metric, slice=where, passed=False, value=value, text=text)]
    reasons = []
    if bounds.max_drop is not None:
        reasons.append(_reason(metric, where, f"drop of {label} from {before:.4g}", before - value, "<=", bounds.max_drop))
    if bounds.max_rise is not None:
        reasons.append(_reason(metric, where, f"rise of {label} from {before:.4g}", value - before, "<=", bounds.max_rise))
    return reasons


def _why_missing(metric: str, metrics: Metrics) -> str:
    if metrics.get(metric) is not None:
        return f"is {metrics[metric]}"
    near: Sequence[str] = [] if metric in metrics else difflib.get_close_matches(metric, list(metrics), n=1)
    return f"is missing (did you mean {near[0]}?)" if near else "is missing"


def _number(metrics: Metrics, name: str) -> float:
    # A metric that could not be computed may have travelled through JSON as null.
    value = metrics.get(name)
    return math.nan if value is None else float(value)


def _reason(metric: str, where: str, label: str, value: float, op: str, bound: float) -> Reason:
    passed = value >= bound - _TOLERANCE if op == ">=" else value <= bound + _TOLERANCE
    return Reason(metric=metric, slice=where, passed=passed, value=value, bound=bound, text=_text(label, value, op, bound, ""))


def _text(label: str, value: float, op: str, bound: float, unit: str) -> str:
    return f"{label} {value:.4g}{unit} (must be {op} {bound:g}{unit})"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
