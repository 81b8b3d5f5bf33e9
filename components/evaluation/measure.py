"""Everything that is measured on one model's predictions: metrics, intervals, slices, and the change against the baseline."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from components.core.gate import Gate, Verdict, combine, judge, refuse
from components.evaluation.baseline import Answered, paired_changes
from components.evaluation.bootstrap import Interval, intervals_of, replicate_metrics
from components.evaluation.evaluation import BaselineComparison, Predictions
from components.evaluation.metrics import Floats, defined, metrics_of

Masks = Mapping[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Measurement:
    """One model on one split. Everything is empty if the model gave any answer that is no probability: nothing is measured then."""

    predictions: Predictions
    labels: list[str]
    masks: Masks
    bins: int
    resamples: int
    seed: int

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Every metric; NaN where undefined."""
        return {} if self.predictions.invalid() else metrics_of(self.predictions, self.labels, self.bins)

    @cached_property
    def slices(self) -> dict[str, dict[str, float]]:
        """`column=value` → its metrics and the number of its `examples`."""
        if self.predictions.invalid():
            return {}
        return {name: self._slice(mask) for name, mask in self.masks.items()}

    @cached_property
    def replicates(self) -> dict[str, Floats]:
        """The metrics on each bootstrap resample."""
        if self.predictions.invalid():
            return {}
        return replicate_metrics(self.predictions, self.labels, bins=self.bins, resamples=self.resamples, seed=self.seed)

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """95 % intervals of the defined metrics."""
        return intervals_of(self.predictions, self.labels, self.metrics, self.replicates)

    def _slice(self, mask: NDArray[np.bool_]) -> dict[str, float]:
        chosen = Predictions(self.predictions.keys[mask], self.predictions.labels[mask], self.predictions.probabilities[mask])
        return {"examples": float(mask.sum())} | metrics_of(chosen, self.labels, self.bins)


def compare(candidate: Measurement, answered: Answered) -> BaselineComparison:
    """The baseline's comparison with its metrics filled in where it was evaluated again."""
    if answered.predictions is None:
        return answered.comparison
    if answered.predictions.invalid():
        text = f"the baseline {answered.comparison.release} gives answers that are no probabilities"
        return answered.comparison.model_copy(update={"how": "failed", "text": text})
    before = Measurement(answered.predictions, candidate.labels, candidate.masks, candidate.bins, candidate.resamples, candidate.seed)
    measured = defined(before.metrics)
    changes = paired_changes(defined(candidate.metrics), measured, candidate.replicates, before.replicates)
    slices = {name: defined(metrics) for name, metrics in before.slices.items()}
    return answered.comparison.model_copy(update={"metrics": measured, "slices": slices, "changes": changes})


def judge_measurement(step: str, gate: Gate, measured: Measurement, comparison: BaselineComparison) -> Verdict:
    """The verdict on a measurement by its gate, compared with the baseline where there is one."""
    compared = comparison.how in ("recorded", "evaluated")
    reason = {"no_baseline": comparison.text} if comparison.text else {}
    verdict = judge(
        step,
        gate,
        measured.metrics,
        slices=measured.slices,
        baseline=comparison.metrics if compared else None,
        baseline_slices=comparison.slices,
        baseline_id=comparison.release if compared else "",
        baseline_lost=comparison.how == "failed",
        **reason,
    )
    if not (invalid := measured.predictions.invalid()):
        return verdict
    broken = refuse("answers", f"{invalid} of {len(measured.predictions)} answers are no probabilities (NaN, infinite or outside 0 to 1)")
    return combine(step, [broken, *verdict.reasons], verdict.baseline)
