"""The evaluation of one exported model, whichever of the two it is: ask, measure, compare, judge, write, show."""

from collections.abc import Sequence
from pathlib import Path

from components.core.examples import read_examples
from components.core.record import StepRecord
from components.evaluation.baseline import Question, find_baseline
from components.evaluation.evaluation import BaselineComparison, Evaluation, ModelKind, write_evaluation
from components.evaluation.measure import Measurement, compare, judge_measurement
from components.evaluation.metrics import calibration_bins, confusion_matrix, defined, worst_mistakes
from components.evaluation.pieces import Asking
from components.evaluation.settings import EvaluateSettings
from components.evaluation.show import show_evaluation
from components.evaluation.slices import automatic_columns, example_columns, slice_masks
from components.evaluation.split import Observed, read_images
from components.evaluation.subject import Ground, Subject, check_labels


def evaluate(
    record: StepRecord, subject: Subject, *, settings: EvaluateSettings, seed: int, examples: Path, output: Path, shards: int = 1
) -> Evaluation:
    """Measure the model on the split, judge it against the gate and the store's baseline, write the artifact to `output`.

    The answers are taken from the pieces of `shards` pods, and are the same from however many.
    Raises `DataError` if the model's labels differ from the examples' or the split is empty.
    """
    ground = Ground(examples, read_examples(examples), settings, seed, shards)
    check_labels(subject.model, ground.examples)
    record.say(f"asking the {subject.kind} model about the {ground.examples.splits[settings.split].count} examples of {settings.split}")
    candidate = Asking(record, record.step, ground, subject.digest() if shards > 1 else "")
    observed = candidate.everything(subject.model)
    measured = _measure(record, observed, ground)
    comparison = _compare(record, subject, measured, ground)
    evaluation = _evaluation(record.step, subject.kind, measured, comparison, ground)
    write_evaluation(output, evaluation, observed.predictions)
    worst = worst_mistakes(observed.predictions, settings.worst_mistakes)
    images = read_images(examples, settings.split, [str(observed.predictions.keys[index]) for index in worst])
    show_evaluation(record, evaluation, observed.predictions, worst, images)
    candidate.drop()
    if evaluation.baseline.release:
        Asking(record, record.step, ground, evaluation.baseline.release).drop()
    return evaluation


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


def _compare(record: StepRecord, subject: Subject, measured: Measurement, ground: Ground) -> BaselineComparison:
    settings = ground.settings
    question = Question(
        model=subject.kind,
        split=settings.split,
        labels=ground.examples.labels,
        examples_digest=ground.examples.digest,
        slices=list(measured.masks),
        metrics=list(defined(measured.metrics)),
        ask=lambda model, release: Asking(record, record.step, ground, release).everything(model).predictions,
    )
    return compare(measured, find_baseline(record.store, question, subject.open_released, settings.reset_baseline))


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
