"""One image: judged from its header, decoded once, made plain (upright 8-bit RGB or gray, JPEG or PNG, not larger than needed).

Bytes that are plain already pass through untouched, so that nothing is compressed twice.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from components.ingest.hashing import THUMB, thumbnail
from components.ingest.settings import IngestSettings

# Formats whose decoders are part of Pillow and run no outside program (EPS would start Ghostscript).
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF")
_LOSSLESS = ("PNG", "GIF", "BMP", "TIFF")
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF", b"II*\x00", b"MM\x00*", b"BM")
_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class Picture:
    """A plain image ready to store. `fixes` names what was mended; `thumb` is its `thumbnail`.

    `untouched`: `data` are the bytes as they came; `scaled`: the original was larger than needed.
    """

    data: bytes
    format: str
    height: int
    width: int
    thumb: bytes
    fixes: tuple[str, ...] = ()
    untouched: bool = False
    scaled: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """An image that a policy leaves out; `kind` is a field of `Policies`."""

    kind: str
    detail: str


def plain_picture(data: bytes, settings: IngestSettings) -> Picture | Rejected:
    """Judge and normalise encoded image bytes. Never raises for bad bytes: those come back as `Rejected`."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return _wrong_size(image, settings) or _judge(image, data, settings)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        return Rejected("too_large", str(error))
    except UnidentifiedImageError:
        return _unidentified(data)
    except Exception as error:  # Pillow's decoders raise almost anything on damaged input; one image must not end a run.
        return Rejected("truncated", f"{type(error).__name__}: {error}"[:200])


def _unidentified(data: bytes) -> Rejected:
    if not data:
        return Rejected("not_an_image", "empty file")
    if data.startswith(_MAGIC):
        return Rejected("truncated", "the header is damaged")
    return Rejected("not_an_image", f"starts with {data[:8]!r}")


def _wrong_size(image: Image.Image, settings: IngestSettings) -> Rejected | None:
    """What the header alone decides. Comes first: looking for anything else may make Pillow decode the pixels."""
    width, height = image.size
    if width * height > settings.max_megapixels * 1e6:
        return Rejected("too_large", f"{width}×{height} pixels")
    if min(width, height) < settings.min_side:
        return Rejected("too_small", f"{width}×{height} pixels")
    return None


def _judge(image: Image.Image, data: bytes, settings: IngestSettings) -> Picture | Rejected:
    oddities = _oddities(image, data)
    for kind in oddities:
        if getattr(settings.policies, kind) != "fix":
            return Rejected(kind, f"{image.format} {image.mode} {image.width}×{image.height}")
    return _normalise(image, data, oddities, settings)


def _oddities(image: Image.Image, data: bytes) -> tuple[str, ...]:
    found = {
        "cmyk": image.mode == "CMYK",
        "sixteen_bit": _is_sixteen_bit(image, data),
        "animated": image.format != "MPO" and getattr(image, "n_frames", 1) > 1,
        "transparent": image.has_transparency_data,
        "rotated": _orientation(image) != 1,
    }
    return tuple(kind for kind, is_so in found.items() if is_so)


def _is_sixteen_bit(image: Image.Image, data: bytes) -> bool:
    if image.mode.startswith("I") or image.mode == "F":
        return True
    # Pillow already reduces 16-bit RGB PNGs to 8; the bit depth stands in byte 24 of the file (IHDR).
    return image.format == "PNG" and data[24:25] == b"\x10"


def _orientation(image: Image.Image) -> int:
    if image.format == "JPEG" and "exif" not in image.info:
        return 1
    try:
        value: Any = image.getexif().get(_ORIENTATION, 1)
        return value if isinstance(value, int) and 1 <= value <= 8 else 1
    except Exception:  # A damaged EXIF block says nothing about the pixels.
        return 1


def _normalise(image: Image.Image, data: bytes, fixes: tuple[str, ...], settings: IngestSettings) -> Picture:
    format_, size = image.format or "", image.size
    target = _target(size, settings.shorter_side)
    untouched = not fixes and target == size and _is_plain(image, data)
    # libjpeg decodes at a fraction of the size for a fraction of the time; the whole file is still read, so damage is still found.
    image.draft(None, (THUMB, THUMB) if untouched else target)
    image.load()
    if untouched:
        return Picture(data, format_.lower(), size[1], size[0], thumbnail(image), untouched=True)
    plain = _upright_rgb(image)
    turned = _target(plain.size, settings.shorter_side)
    if plain.size != turned:
        plain = plain.resize(turned, Image.Resampling.LANCZOS, reducing_gap=2.0)
    lossless = format_ in _LOSSLESS and target == size
    encoded = _encode(plain, lossless, settings.jpeg_quality)
    kind = "png" if lossless else "jpeg"
    return Picture(encoded, kind, plain.height, plain.width, thumbnail(plain), fixes, scaled=target != size)


def _target(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """The size whose shorter side is at most `shorter`, same aspect."""
    width, height = size
    factor = shorter / min(width, height)
    return size if factor >= 1 else (max(shorter, round(width * factor)), max(shorter, round(height * factor)))


def _is_plain(image: Image.Image, data: bytes) -> bool:
    if image.mode not in ("RGB", "L"):
        return False
    return image.format == "JPEG" or (image.format == "PNG" and data[24:25] == b"\x08")


def _upright_rgb(image: Image.Image) -> Image.Image:
    # In place: what stands upright already would be copied for nothing.
    ImageOps.exif_transpose(image, in_place=True)
    upright = image
    if upright.mode.startswith("I") or upright.mode == "F":
        upright = _high_byte(upright)
    if upright.has_transparency_data:
        layered = upright.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        upright = Image.alpha_composite(white, layered)
    return upright if upright.mode == "RGB" else upright.convert("RGB")


def _high_byte(image: Image.Image) -> Image.Image:
    """Gray of 16 bits (Pillow modes I;16…, I, F) to 8: v → v // 256."""
    values = np.clip(np.asarray(image, dtype=np.float64) // 256, 0, 255)
    return Image.fromarray(values.astype(np.uint8))


def _encode(image: Image.Image, lossless: bool, quality: int) -> bytes:
    buffer = io.BytesIO()
    if lossless:
        image.save(buffer, "PNG")
    else:
        image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
