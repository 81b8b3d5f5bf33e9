"""What an evaluation leaves in its step's record: figures, tables, pictures, the verdict."""

from collections.abc import Mapping, Sequence

from components.core.record import StepRecord
from components.evaluation.bootstrap import Interval, wilson_interval
from components.evaluation.evaluation import Evaluation, Predictions
from components.evaluation.pictures import Tile, calibration_picture, confusion_picture, contact_sheet, slices_picture

MAIN_METRICS = ("accuracy", "macro_f1", "expected_calibration_error", "log_loss")
_TITLES = {"cloud": "Cloud model", "mobile": "Mobile model"}


def show_evaluation(
    record: StepRecord, evaluation: Evaluation, predictions: Predictions, worst: Sequence[int], images: Mapping[str, bytes]
) -> None:
    """Fill the record; `worst` are indices of mistakes and `images` their encoded pictures by key."""
    for name in MAIN_METRICS:
        if name in evaluation.metrics:
            record.metric(name, evaluation.metrics[name])
    record.metric("examples", evaluation.examples)
    _tables(record, evaluation)
    if evaluation.confusion:
        _pictures(record, evaluation)
    if worst:
        _mistakes(record, evaluation, predictions, worst, images)
    _say_baseline(record, evaluation)
    record.verdict(evaluation.verdict)


def _say_baseline(record: StepRecord, evaluation: Evaluation) -> None:
    if evaluation.baseline.how in ("reset", "failed"):
        record.warn(evaluation.baseline.text)
    elif evaluation.baseline.text:
        record.note(evaluation.baseline.text)


def _tables(record: StepRecord, evaluation: Evaluation) -> None:
    rows = [_overall_row(evaluation, name) for name in MAIN_METRICS if name in evaluation.metrics]
    record.table(
        f"Overall, {evaluation.examples} examples of {evaluation.split}",
        ["metric", "value", "95 % interval", *_change_heads(evaluation)],
        rows,
    )
    columns = ["class", "examples", "precision", "recall", "95 % interval", "F1"]
    record.table("Per class", columns, [_class_row(evaluation, index, label) for index, label in enumerate(evaluation.labels)])
    if evaluation.slices:
        sliced = [_slice_row(name, metrics) for name, metrics in evaluation.slices.items()]
        record.table("Per slice", ["slice", "examples", "accuracy", "95 % interval", "macro F1"], sliced)


def _change_heads(evaluation: Evaluation) -> list[str]:
    return ["baseline", "change"] if evaluation.baseline.metrics else []


def _overall_row(evaluation: Evaluation, name: str) -> list[str | float | int | None]:
    row: list[str | float | int | None] = [name.replace("_", " "), evaluation.metrics[name], _interval(evaluation.intervals.get(name))]
    baseline = evaluation.baseline
    if not baseline.metrics:
        return row
    before = baseline.metrics.get(name)
    change = None if before is None else f"{evaluation.metrics[name] - before:+.4f}"
    if change and name in baseline.changes:
        change += f" ({_interval(baseline.changes[name][1:], signed=True)})"
    return [*row, before, change]


def _class_row(evaluation: Evaluation, index: int, label: str) -> list[str | float | int | None]:
    count = sum(evaluation.confusion[index]) if evaluation.confusion else None
    precision, recall, f1 = (evaluation.metrics.get(f"{family}/{label}") for family in ("precision", "recall", "f1"))
    return [label, count, precision, recall, _interval(evaluation.intervals.get(f"recall/{label}")), f1]


def _slice_row(name: str, metrics: Mapping[str, float]) -> list[str | float | int | None]:
    count, accuracy = int(metrics["examples"]), metrics["accuracy"]
    interval = _interval(wilson_interval(accuracy * count, count))
    return [name, count, accuracy, interval, metrics.get("macro_f1")]


def _interval(interval: Interval | None, signed: bool = False) -> str | None:
    if interval is None:
        return None
    spec = "+.3f" if signed else ".3f"
    return f"{interval[0]:{spec}} to {interval[1]:{spec}}"


def _pictures(record: StepRecord, evaluation: Evaluation) -> None:
    title = _TITLES[evaluation.model]
    picture = confusion_picture(evaluation.confusion, evaluation.labels, f"{title}: true class against answer")
    record.picture("confusion", picture, f"{title} on {evaluation.split}: rows are true classes, columns answers, numbers examples")
    error = evaluation.metrics["expected_calibration_error"]
    picture = calibration_picture(evaluation.calibration, error, f"{title}: confidence against accuracy")
    record.picture(
        "calibration", picture, f"Reliability diagram; expected calibration error {error:.3f} over {len(evaluation.calibration)} bins"
    )
    if evaluation.slices:
        picture = slices_picture(evaluation.slices, evaluation.metrics["accuracy"], f"{title}: accuracy per slice")
        record.picture("slices", picture, "Accuracy of each slice with its 95 % interval (Wilson); the line is the whole split")


def _mistakes(
    record: StepRecord, evaluation: Evaluation, predictions: Predictions, worst: Sequence[int], images: Mapping[str, bytes]
) -> None:
    tiles, rows = [], []
    for index in worst:
        key, score = str(predictions.keys[index]), float(predictions.scores[index])
        true, answer = evaluation.labels[predictions.labels[index]], evaluation.labels[predictions.predicted[index]]
        tiles.append(Tile(images[key], true, f"says {answer} {score:.0%}"))
        rows.append([key, true, answer, score])
    total = int((~predictions.correct).sum())
    caption = f"The {len(worst)} most confident of {total} mistakes: true class above, answer and confidence below"
    record.picture("worst_mistakes", contact_sheet(tiles), caption, kind="jpg")
    record.table("Most confident mistakes", ["image", "true", "answer", "confidence"], rows)
