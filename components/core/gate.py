"""The gate: thresholds in, a verdict with reasons out; always written, never silent.

Rules (DESIGN.md, "Gate"): no thresholds configured is a configuration error; a missing metric, NaN, a missing slice or a slice with
too few examples fails; without a baseline (a first release) only absolute thresholds apply, and the verdict says so.
"""

import math
from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict, Field

from components.core.errors import UsageError


class Threshold(BaseModel):
    """Bounds of one metric. `min`/`max` are absolute; `max_drop`/`max_rise` compare with the baseline's value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: float | None = Field(None, description="The metric must be at least this.")
    max: float | None = Field(None, description="The metric must be at most this.")
    max_drop: float | None = Field(None, ge=0, description="The metric may be at most this much below the baseline's.")
    max_rise: float | None = Field(None, ge=0, description="The metric may be at most this much above the baseline's.")

    def is_empty(self) -> bool:
        """Whether no bound is set at all."""
        return self.min is None and self.max is None and self.max_drop is None and self.max_rise is None

    def is_relative(self) -> bool:
        """Whether a bound needs a baseline."""
        return self.max_drop is not None or self.max_rise is not None


class Gate(BaseModel):
    """The thresholds of one step, over all examples and per slice."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    thresholds: dict[str, Threshold] = Field({}, description="Metric name → bounds, over the whole split.")
    slices: dict[str, dict[str, Threshold]] = Field(
        {}, description="Slice (`column=value`, or `column=*` for each value seen) → metric → bounds."
    )
    min_slice_examples: int = Field(10, ge=1, description="A gated slice with fewer examples fails: its metrics mean nothing.")


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
        return "NOT BLESSED: " + "; ".join(self.failures())


def judge(
    step: str,
    gate: Gate,
    metrics: Mapping[str, float],
    *,
    slices: Mapping[str, Mapping[str, float]] | None = None,
    baseline: Mapping[str, float] | None = None,
    baseline_slices: Mapping[str, Mapping[str, float]] | None = None,
    baseline_id: str = "",
) -> Verdict:
    """Judge `metrics` (and `slices`: `column=value` → metrics incl. `examples`) by `gate`.

    Raises `UsageError` if the gate has no threshold at all, or one without a bound.
    """
    check_gate(step, gate)
    reasons = [r for name, bounds in gate.thresholds.items() for r in _check(name, bounds, metrics, baseline, "")]
    for pattern, thresholds in gate.slices.items():
        reasons += _check_slices(pattern, thresholds, gate.min_slice_examples, slices or {}, baseline_slices)
    if baseline is None:
        reasons.append(Reason(metric="baseline", passed=True, text="first release: no baseline, only absolute thresholds apply"))
    return combine(step, reasons, baseline_id)


def combine(step: str, reasons: Iterable[Reason], baseline_id: str = "") -> Verdict:
    """The verdict of a list of checks: blessed only if there is one and none failed."""
    checks = list(reasons)
    return Verdict(step=step, blessed=bool(checks) and all(r.passed for r in checks), reasons=checks, baseline=baseline_id)


def at_most(metric: str, value: float, bound: float, unit: str = "") -> Reason:
    """The check of a budget: `value` ≤ `bound`; NaN fails."""
    passed = math.isfinite(value) and value <= bound
    return Reason(metric=metric, passed=passed, value=_finite(value), bound=bound, text=_text(metric, value, "<=", bound, unit))


def check_gate(step: str, gate: Gate) -> None:
    """Raise `UsageError` unless the gate can refuse something."""
    bounds = [*gate.thresholds.items(), *((f"{s}/{m}", t) for s, ts in gate.slices.items() for m, t in ts.items())]
    if not bounds:
        raise UsageError(
            "no thresholds are configured", where=f"{step}.gate", fix="Set at least one, for example thresholds: {accuracy: {min: 0.8}}"
        )
    for name, threshold in bounds:
        if threshold.is_empty():
            raise UsageError("the threshold has no bound", where=f"{step}.gate: {name}", fix="Set min, max, max_drop or max_rise")


def _check_slices(
    pattern: str,
    thresholds: Mapping[str, Threshold],
    min_examples: int,
    slices: Mapping[str, Mapping[str, float]],
    baseline: Mapping[str, Mapping[str, float]] | None,
) -> list[Reason]:
    column = pattern.removesuffix("*")
    names = sorted(n for n in slices if n.startswith(column)) if pattern.endswith("=*") else [n for n in [pattern] if n in slices]
    if not names:
        return [Reason(metric="examples", slice=pattern, passed=False, text=f"slice {pattern} has no examples")]
    reasons = []
    for name in names:
        count = slices[name].get("examples", 0)
        if count < min_examples:
            text = f"slice {name} has {count:g} examples, needs {min_examples}"
            reasons.append(Reason(metric="examples", slice=name, passed=False, value=count, bound=min_examples, text=text))
        before = baseline.get(name) if baseline is not None else None
        reasons += [r for metric, t in thresholds.items() for r in _check(metric, t, slices[name], before, name)]
    return reasons


def _check(metric: str, bounds: Threshold, metrics: Mapping[str, float], baseline: Mapping[str, float] | None, where: str) -> list[Reason]:
    label = f"{where} {metric}".strip()
    value = metrics.get(metric, math.nan)
    if not math.isfinite(value):
        why = "is missing" if metric not in metrics else f"is {value}"
        return [Reason(metric=metric, slice=where, passed=False, text=f"{label} {why}")]
    checks = [(bounds.min, value, ">=", "")] if bounds.min is not None else []
    checks += [(bounds.max, value, "<=", "")] if bounds.max is not None else []
    reasons = [_reason(metric, where, label, v, op, bound) for bound, v, op, _ in checks if bound is not None]
    if baseline is not None and bounds.is_relative():
        reasons += _check_change(metric, where, label, value, bounds, baseline.get(metric, math.nan))
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


def _reason(metric: str, where: str, label: str, value: float, op: str, bound: float) -> Reason:
    # Differences of decimals such as 0.90 - 0.88 must not fail a bound of 0.02 by rounding.
    passed = value >= bound - 1e-12 if op == ">=" else value <= bound + 1e-12
    return Reason(metric=metric, slice=where, passed=passed, value=value, bound=bound, text=_text(label, value, op, bound, ""))


def _text(label: str, value: float, op: str, bound: float, unit: str) -> str:
    return f"{label} {value:.4g}{unit} (must be {op} {bound:g}{unit})"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
