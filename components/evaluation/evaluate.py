"""The evaluation of one exported model, whichever of the two it is: ask, measure, compare, judge, write, show."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.core.errors import DataError
from components.core.examples import Examples, read_examples
from components.core.record import StepRecord
from components.core.stores import Store
from components.evaluation.baseline import OpenReleased, Question, find_baseline
from components.evaluation.evaluation import BaselineComparison, Evaluation, ModelKind, write_evaluation
from components.evaluation.image_model import ImageModel
from components.evaluation.measure import Measurement, compare, judge_measurement
from components.evaluation.metrics import calibration_bins, confusion_matrix, defined, worst_mistakes
from components.evaluation.settings import EvaluateSettings
from components.evaluation.show import show_evaluation
from components.evaluation.slices import automatic_columns, example_columns, slice_masks
from components.evaluation.split import Observed, observe, predict_split, read_images


@dataclass(frozen=True)
class Subject:
    """What is evaluated: the candidate, and how to open its counterpart in a release."""

    kind: ModelKind
    model: ImageModel
    open_released: OpenReleased


@dataclass(frozen=True)
class Ground:
    """What it is evaluated on."""

    root: Path
    examples: Examples
    settings: EvaluateSettings
    seed: int


def evaluate(record: StepRecord, subject: Subject, *, settings: EvaluateSettings, seed: int, examples: Path, output: Path) -> Evaluation:
    """Measure the model on the split, judge it against the gate and the store's baseline, write the artifact to `output`.

    Raises `DataError` if the model's labels differ from the examples' or the split is empty.
    """
    ground = Ground(examples, read_examples(examples), settings, seed)
    _check_labels(subject.model, ground.examples)
    record.say(f"asking the {subject.kind} model about the {ground.examples.splits[settings.split].count} examples of {settings.split}")
    observed = observe(subject.model, examples, settings.split, settings.batch_size)
    measured = _measure(record, observed, ground)
    comparison = _compare(record.store, subject, measured, ground)
    evaluation = _evaluation(record.step, subject.kind, measured, comparison, ground)
    write_evaluation(output, evaluation, observed.predictions)
    worst = worst_mistakes(observed.predictions, settings.worst_mistakes)
    images = read_images(examples, settings.split, [str(observed.predictions.keys[index]) for index in worst])
    show_evaluation(record, evaluation, observed.predictions, worst, images)
    return evaluation


def _check_labels(model: ImageModel, examples: Examples) -> None:
    if model.labels != examples.labels:
        what = f"the model answers {model.labels}, the examples are labelled {examples.labels}: other classes, or another order"
        raise DataError(what, fix="Train the model on these examples")


def _measure(record: StepRecord, observed: Observed, ground: Ground) -> Measurement:
    settings = ground.settings
    return Measurement(
        observed.predictions,
        ground.examples.labels,
        slice_masks(_columns(record, observed, settings)),
        bins=settings.calibration_bins,
        resamples=settings.resamples,
        seed=ground.seed,
    )


def _columns(record: StepRecord, observed: Observed, settings: EvaluateSettings) -> dict[str, Sequence[str]]:
    own = example_columns(observed.slices)
    many = {name: len(set(values)) for name, values in own.items() if len(set(values)) > settings.max_slice_values}
    for name, count in many.items():
        record.warn(f"slice column '{name}' has {count} values, more than max_slice_values={settings.max_slice_values}: not sliced")
    automatic = automatic_columns(observed.looks) if settings.automatic_slices else {}
    return {**automatic, **{name: values for name, values in own.items() if name not in many}}


def _compare(store: Store, subject: Subject, measured: Measurement, ground: Ground) -> BaselineComparison:
    settings = ground.settings
    question = Question(
        model=subject.kind,
        split=settings.split,
        labels=ground.examples.labels,
        examples_digest=ground.examples.digest,
        slices=list(measured.masks),
        metrics=list(defined(measured.metrics)),
        ask=lambda model: predict_split(model, ground.root, settings.split, settings.batch_size),
    )
    return compare(measured, find_baseline(store, question, subject.open_released, settings.reset_baseline))


def _evaluation(step: str, kind: ModelKind, measured: Measurement, comparison: BaselineComparison, ground: Ground) -> Evaluation:
    valid = not measured.predictions.invalid()
    return Evaluation(
        model=kind,
        split=ground.settings.split,
        examples=len(measured.predictions),
        labels=measured.labels,
        examples_digest=ground.examples.digest,
        metrics=defined(measured.metrics),
        intervals=measured.intervals,
        confusion=confusion_matrix(measured.predictions).tolist() if valid else [],
        slices={name: defined(metrics) for name, metrics in measured.slices.items()},
        calibration=calibration_bins(measured.predictions, measured.bins) if valid else [],
        baseline=comparison,
        verdict=judge_measurement(step, ground.settings.gate, measured, comparison),
    )
