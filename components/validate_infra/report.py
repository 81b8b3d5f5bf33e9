"""What the run's report shows of validate_infra: figures, a table, and the golden images with both answers."""

import io
from pathlib import Path

from PIL import Image, ImageDraw

from components.core.record import StepRecord
from components.validate_infra.golden import Golden, GoldenImage
from components.validate_infra.infra import Infra, Side
from components.validate_infra.settings import Budgets

_SIDE, _TEXT, _COLUMNS = 144, 40, 6
_FIGURES = {
    "start_seconds": "start of the process (s)",
    "load_seconds": "load of the model (s)",
    "first_ms": "first request (ms)",
    "p50_ms": "one image, median (ms)",
    "p99_ms": "one image, 99th percentile (ms)",
    "memory_mb": "peak memory (MB)",
    "size_mb": "size (MB)",
}


def tell(record: StepRecord, infra: Infra, golden: Golden, folder: Path, budgets: Budgets) -> None:
    """Put everything into the step's record; the verdict last."""
    for name, side in (("cloud", infra.cloud), ("mobile", infra.mobile)):
        for figure, measured in side.measurements.items():
            record.metric(f"{name}_{figure}", measured)
    record.table("Loaded and asked", ["figure", "cloud", "budget", "mobile", "budget "], _figures(infra, budgets))
    record.table("Malformed requests", ["sent", "over", "answer", "clean"], _malformed(infra))
    if golden.images:
        record.picture("golden", draw_golden(golden, folder), "The golden images: their class, and what the cloud and the mobile model say")
    record.data("server_log", infra.cloud.log_tail)
    record.data("interpreter_log", infra.mobile.log_tail)
    record.verdict(infra.verdict)


def _figures(infra: Infra, budgets: Budgets) -> list[list[str | float | int | None]]:
    bounds = budgets.model_dump()

    def cells(name: str, side: Side, figure: str) -> list[float | None]:
        return [side.measurements.get(figure), bounds.get(f"{name}_{figure}")]

    return [[text, *cells("cloud", infra.cloud, key), *cells("mobile", infra.mobile, key)] for key, text in _FIGURES.items()]


def _malformed(infra: Infra) -> list[list[str | float | int | None]]:
    attempts = [*infra.cloud.malformed, *infra.mobile.malformed]
    return [[each.case, each.protocol, each.answer, "yes" if each.clean else "NO"] for each in attempts]


def draw_golden(golden: Golden, folder: Path) -> bytes:
    """A PNG: the golden images in rows, each with its class and both answers."""
    columns = min(_COLUMNS, len(golden.images))
    rows = -(-len(golden.images) // columns)
    sheet = Image.new("RGB", (columns * _SIDE, rows * (_SIDE + _TEXT)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, each in enumerate(golden.images):
        left, top = number % columns * _SIDE, number // columns * (_SIDE + _TEXT)
        with Image.open(folder / each.file) as image:
            sheet.paste(_square(image.convert("RGB")), (left, top))
        for line, (text, right) in enumerate(_lines(each)):
            draw.text((left + 4, top + _SIDE + 1 + 12 * line), text, fill="black" if right else "#b00020")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _square(image: Image.Image) -> Image.Image:
    image.thumbnail((_SIDE - 8, _SIDE - 8))
    square = Image.new("RGB", (_SIDE, _SIDE), "white")
    square.paste(image, ((_SIDE - image.width) // 2, (_SIDE - image.height) // 2))
    return square


def _lines(each: GoldenImage) -> list[tuple[str, bool]]:
    cloud, mobile = max(each.cloud.probabilities), max(each.mobile.probabilities) / 256
    return [
        (each.label, True),
        (f"cloud: {each.cloud.label} {cloud:.2f}", each.cloud.label == each.label),
        (f"mobile: {each.mobile.label} {mobile:.2f}", each.mobile.label == each.label),
    ]
