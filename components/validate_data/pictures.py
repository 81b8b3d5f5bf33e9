"""Which pictures the step draws, and what their captions say."""

import re

from components.core.examples import SPLITS
from components.core.record import StepRecord
from components.validate_data.compare import Compared
from components.validate_data.scan import Scan
from components.validate_data.settings import ValidateDataSettings
from components.validate_data.sheets import contact_sheet

_POINTS = 700


def draw_data(record: StepRecord, scan: Scan, settings: ValidateDataSettings) -> None:
    """Classes, distributions, splits side by side, and a sample sheet per class; nothing if there are no images."""
    from components.validate_data.charts import class_chart, distribution_chart, split_projection_chart

    if not len(scan):
        return
    record.picture("classes", class_chart(scan), "Images per class and split")
    record.picture("distributions", distribution_chart(scan), "What the images are like, per split (share of images)")
    rows = {split: scan.sample(scan.rows(split), _POINTS) for split in SPLITS if len(scan.rows(split))}
    caption = "Images by colour layout, edges and detail: splits that were made at random cover each other"
    record.picture("splits", split_projection_chart(scan, rows), caption)
    for number, label in enumerate(scan.labels[: settings.sample_classes]):
        _draw_sample(record, scan, number, label, settings.sample_images)
    if len(scan.labels) > settings.sample_classes:
        record.note(f"Sample sheets of the first {settings.sample_classes} of {len(scan.labels)} classes (validate_data.sample_classes).")


def _draw_sample(record: StepRecord, scan: Scan, number: int, label: str, count: int) -> None:
    chosen = scan.sample((scan.label == number).nonzero()[0], count)
    if len(chosen):
        record.picture(f"samples-{number:02d}", contact_sheet([scan.image(row) for row in chosen]), f"A random sample of {label}", "jpg")


def draw_conflicts(record: StepRecord, scan: Scan, rows: list[int], settings: ValidateDataSettings) -> None:
    """The examples that are there under several labels, with those labels."""
    shown = rows[: settings.sample_images]
    if shown:
        sheet = contact_sheet([scan.image(row) for row in shown], [scan.texts[row] for row in shown])
        record.picture("conflicts", sheet, "The same image under different labels", "jpg")


def draw_shift(record: StepRecord, scan: Scan, compared: Compared, settings: ValidateDataSettings) -> None:
    """Histograms, projection and the images most unlike the base: always for drift, for skew if it was found."""
    from components.validate_data.charts import projection_chart, shift_chart

    comparison = compared.comparison
    if not comparison.measures or (comparison.kind == "skew" and not comparison.flagged()):
        return
    name, sides = re.sub(r"[^\w]+", "-", comparison.name), f"{comparison.sample} against {comparison.base}"
    heading = f"{comparison.kind.capitalize()}, {sides}"
    record.picture(f"{name}-statistics", shift_chart(compared), f"{heading}: distances and p-values; red is beyond its threshold")
    record.picture(f"{name}-projection", projection_chart(compared), f"{heading}: every dot is an image")
    rows = compared.most_unlike(settings.sample_images)
    sheet = contact_sheet([scan.image(row) for row in rows], [scan.texts[row] for row in rows])
    record.picture(f"{name}-images", sheet, f"{heading}: the images of {comparison.sample} least like {comparison.base}", "jpg")
