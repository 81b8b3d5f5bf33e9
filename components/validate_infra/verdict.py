"""The checks of validate_infra as reasons of one verdict."""

import math
from collections.abc import Iterator

from components.core.errors import UsageError
from components.core.gate import Reason, Verdict, at_most, combine
from components.validate_infra.infra import Side
from components.validate_infra.settings import Budgets, ValidateInfraSettings

_UNITS = {"seconds": " s", "ms": " ms", "mb": " MB"}


def check_budgets(budgets: Budgets) -> None:
    """Raise `UsageError` unless at least one budget is set: a check that can't refuse anything is a mistake."""
    if not _bounds(budgets):
        raise UsageError("no budget is set", where="validate_infra.budgets", fix="Set at least one, for example cloud_p99_ms: 500")


def judge_infra(cloud: Side, mobile: Side, settings: ValidateInfraSettings) -> Verdict:
    """Every check of both sides; a side that could not be queried at all is one failure with its reason."""
    reasons = [*_side("cloud", cloud, settings.cloud_tolerance, settings.budgets)]
    if not cloud.failure:
        reasons.append(_warmup(cloud))
    return combine("validate_infra", [*reasons, *_side("mobile", mobile, settings.mobile_tolerance, settings.budgets)])


def _side(name: str, side: Side, tolerance: float, budgets: Budgets) -> Iterator[Reason]:
    if side.failure:
        yield Reason(metric=f"{name}_started", passed=False, text=f"{name}: {side.failure}")
        return
    yield Reason(metric=f"{name}_started", passed=True, text=f"{name}: ready after {side.measurements['start_seconds']:.1f} s")
    for protocol, differences in side.differences.items():
        yield _answers(name, protocol, differences, side.mistaken[protocol], tolerance)
    yield _malformed(name, side)
    for metric, bound in _bounds(budgets).items():
        if metric.startswith(f"{name}_"):
            value = side.measurements.get(metric.removeprefix(f"{name}_"), math.nan)
            yield at_most(metric, value, bound, _UNITS[metric.rpartition("_")[2]])


def _answers(name: str, protocol: str, differences: list[float], mistaken: list[str], tolerance: float) -> Reason:
    worst = max(differences, default=math.inf)
    passed = worst <= tolerance and not mistaken
    close = sum(difference <= tolerance for difference in differences)
    text = f"{name}: {close} of {len(differences)} golden answers over {protocol} equal the evaluation's"
    text += f" (largest difference {worst:.3g}, tolerance {tolerance:g})"
    text += f"; another label for {', '.join(mistaken)}" if mistaken else ""
    return Reason(metric=f"{name}_golden", passed=passed, text=text, value=worst if math.isfinite(worst) else None, bound=tolerance)


def _malformed(name: str, side: Side) -> Reason:
    unclean = [f"{each.case} over {each.protocol}: {each.answer}" for each in side.malformed if not each.clean]
    text = f"{name}: {len(side.malformed) - len(unclean)} of {len(side.malformed)} malformed requests were refused cleanly"
    text += f" ({'; '.join(unclean)})" if unclean else ""
    text += "" if side.alive else "; after them the golden answers were wrong"
    return Reason(metric=f"{name}_malformed", passed=bool(side.malformed) and not unclean and side.alive, text=text)


def _warmup(side: Side) -> Reason:
    written, replayed = side.warmup
    text = f"cloud: {replayed} of {written} warm-up requests were replayed before the model was AVAILABLE"
    return Reason(metric="cloud_warmup", passed=written == replayed > 0, value=replayed, bound=written, text=text)


def _bounds(budgets: Budgets) -> dict[str, float]:
    return {name: bound for name, bound in budgets.model_dump().items() if bound is not None}
