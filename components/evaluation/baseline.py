"""The baseline: the last promoted release, measured on the same examples as the candidate.

A release's own figures were measured on the test split of its day. Comparing them with today's would compare two test sets, so they
are used only if the examples are the same; otherwise the released model is fetched from the store and evaluated again, today.
A baseline that can't be had or asked the same question is a failure with its reason, never a silent pass: relative thresholds fail
then, unless `reset_baseline` gives a reason to go without.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from components.core.errors import DualError
from components.core.release import ModelEvaluation, Release, read_baseline
from components.core.stores import Store
from components.evaluation.evaluation import BaselineComparison, ModelKind, Predictions
from components.evaluation.image_model import ImageModel
from components.evaluation.metrics import Floats

OpenReleased = Callable[[Store, Release, Path], ImageModel]
"""Fetches a release's model into a folder and loads it."""


@dataclass(frozen=True)
class Question:
    """What the candidate was asked, for the baseline to be asked the same."""

    model: ModelKind
    split: str
    labels: list[str]
    examples_digest: str
    slices: list[str]
    metrics: list[str]
    ask: Callable[[ImageModel, str], Predictions]
    """A loaded model, and which release it is of → its answers."""


@dataclass(frozen=True)
class Answered:
    """A baseline's comparison, and its predictions where it was evaluated again."""

    comparison: BaselineComparison
    predictions: Predictions | None = None


def find_baseline(store: Store, question: Question, open_released: OpenReleased, reset: str) -> Answered:
    """The promoted release's answer to the question; never raises for a baseline that can't be had: the comparison says why."""
    release_id = ""
    try:
        release = read_baseline(store)
        if release is None:
            return Answered(BaselineComparison())
        release_id = release.id
        if reset:
            return Answered(_ignored(release_id, reset))
        return _answer(store, release, question, open_released)
    except DualError as error:
        if reset:
            return Answered(_ignored(release_id, reset))
        text = f"the baseline {release_id or '(channel)'} can't be evaluated: {error}"
        return Answered(BaselineComparison(release=release_id, how="failed", text=text))


def _ignored(release_id: str, reason: str) -> BaselineComparison:
    text = f"the baseline {release_id or '(unreadable)'} is ignored on request ({reason}): only absolute thresholds apply"
    return BaselineComparison(release=release_id, how="reset", text=text)


def paired_changes(
    candidate: Mapping[str, float], baseline: Mapping[str, float], replicates: Mapping[str, Floats], before: Mapping[str, Floats]
) -> dict[str, tuple[float, float, float]]:
    """Metric → (change, low, high) with a 95 % percentile interval of the paired differences of the replicates."""
    changes = {}
    for name in sorted(set(candidate) & set(baseline) & set(replicates) & set(before)):
        difference = (replicates[name] - before[name])[np.isfinite(replicates[name] - before[name])]
        if len(difference):
            low, high = np.quantile(difference, (0.025, 0.975))
            changes[name] = (candidate[name] - baseline[name], float(low), float(high))
    return changes


def _answer(store: Store, release: Release, question: Question, open_released: OpenReleased) -> Answered:
    if refusal := incomparable(release, question.labels):
        return Answered(BaselineComparison(release=release.id, how="failed", text=refusal))
    recorded = getattr(release.evaluations, question.model)
    if _same_question(recorded, question):
        text = f"compared with release {release.id} as recorded: the examples are the same"
        return Answered(BaselineComparison(release=release.id, how="recorded", text=text, metrics=recorded.metrics, slices=recorded.slices))
    with TemporaryDirectory(prefix="dual-baseline-") as folder:
        model = open_released(store, release, Path(folder))
        predictions = _in_order(question.ask(model, release.id), model.labels, question.labels)
    text = f"compared with release {release.id}, evaluated again on today's examples"
    return Answered(BaselineComparison(release=release.id, how="evaluated", text=text), predictions)


def incomparable(release: Release, labels: list[str]) -> str:
    """Why the release can't be asked about examples of these labels; empty if it can."""
    added, removed = sorted(set(labels) - set(release.labels)), sorted(set(release.labels) - set(labels))
    if not added and not removed:
        return ""
    changes = [f"{what} {', '.join(names)}" for what, names in (("added", added), ("removed", removed)) if names]
    return (
        f"the baseline {release.id} has other labels ({'; '.join(changes)}), so the two answer different questions: "
        "set reset_baseline to a reason to go without it"
    )


def _same_question(recorded: ModelEvaluation, question: Question) -> bool:
    return (
        recorded.examples_digest == question.examples_digest
        and recorded.split == question.split
        and recorded.labels == question.labels
        and set(question.slices) <= set(recorded.slices)
        and set(question.metrics) <= set(recorded.metrics)
    )


def _in_order(predictions: Predictions, theirs: list[str], ours: list[str]) -> Predictions:
    columns = [theirs.index(label) for label in ours]
    return Predictions(predictions.keys, predictions.labels, predictions.probabilities[:, columns])
