"""Contact sheets: many examples side by side, as one JPEG."""

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont, ImageOps

_TILE, _GAP, _MARGIN, _COLUMNS = 128, 6, 8, 6
_CAPTION = 18
_INK, _PAPER, _EMPTY = "#333333", "#ffffff", "#dddddd"
_MOST_BYTES = 140_000


def contact_sheet(images: Sequence[bytes], captions: Sequence[str] = ()) -> bytes:
    """The images (JPEG or PNG bytes), cropped to squares of 128 px, six in a row, as a JPEG of less than 150 kB.

    `captions` are written below, one each, shortened to fit. An image that can't be decoded leaves a grey square.
    """
    high = _TILE + (_CAPTION if captions else 0)
    columns = min(_COLUMNS, max(1, len(images)))
    rows = max(1, -(-len(images) // columns))
    size = (columns * (_TILE + _GAP) - _GAP + 2 * _MARGIN, rows * (high + _GAP) - _GAP + 2 * _MARGIN)
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, data in enumerate(images):
        x, y = _MARGIN + index % columns * (_TILE + _GAP), _MARGIN + index // columns * (high + _GAP)
        sheet.paste(_tile(data), (x, y))
        if captions:
            _write(draw, captions[index], x, y + _TILE + 2)
    return _jpeg(sheet)


def _tile(data: bytes) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", (2 * _TILE, 2 * _TILE))
            return ImageOps.fit(image.convert("RGB"), (_TILE, _TILE), Image.Resampling.LANCZOS)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return Image.new("RGB", (_TILE, _TILE), _EMPTY)


def _write(draw: ImageDraw.ImageDraw, text: str, x: int, y: int) -> None:
    font = ImageFont.load_default(12)
    while text and draw.textlength(text, font=font) > _TILE:
        text = text[:-2].rstrip() + "…" if len(text) > 2 else ""
    draw.text((x, y), text, fill=_INK, font=font)


def _jpeg(sheet: Image.Image) -> bytes:
    for quality in (85, 75, 65, 50, 35):
        buffer = io.BytesIO()
        sheet.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= _MOST_BYTES:
            break
    return buffer.getvalue()
