"""How a picture looks, in 80 bytes."""

from collections.abc import Sequence
from functools import cache
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from PIL import Image

THUMB = 32
LOOK_BYTES = 80
_LOW = 16
HASH_BYTES = _LOW * _LOW // 8
CELLS = 4
_FLAT = 2.0
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_NOISE = 16.0

Looks = NDArray[np.uint8]


def thumbnail(image: Image.Image) -> bytes:
    """What `looks` needs of a picture: 32×32 RGB pixels (3072 bytes), each the mean of its part."""
    gap = 1.0 if min(image.size) > 4 * THUMB else None
    small = image if image.size == (THUMB, THUMB) else image.resize((THUMB, THUMB), Image.Resampling.BOX, reducing_gap=gap)
    return (small if small.mode == "RGB" else small.convert("RGB")).tobytes()


def looks(thumbnails: Sequence[bytes]) -> Looks:
    """Thumbnails → [N, 80]: 256 bits of shape, then 4×4 RGB cells; both survive scaling, compression and small changes of light.

    The bits say which of the 16×16 lowest frequencies of the gray picture are above their median: pHash (Zauner, Implementation and
    Benchmarking of Perceptual Image Hash Functions, 2010) with 16×16 for its 8×8. A flat picture has no shape: its bits are a digest.
    """
    pixels = np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, THUMB, THUMB, 3).astype(np.float32)
    gray = pixels @ _LUMA
    basis = _cosines()
    low = (basis @ gray @ basis.T).reshape(len(pixels), -1)
    # Smooth pictures have frequencies of almost nothing, whose signs are noise.
    bits = np.packbits(low > np.median(low, axis=1, keepdims=True) + _NOISE, axis=1)
    for index in np.flatnonzero(gray.reshape(len(gray), -1).std(1) < _FLAT).tolist():
        bits[index] = np.frombuffer(sha256(thumbnails[index]).digest(), np.uint8)
    side = THUMB // CELLS
    # Rows first: numpy adds whole rows many times faster than it adds over two axes at once.
    rows = pixels.reshape(-1, CELLS, side, THUMB * 3).sum(2).reshape(-1, CELLS, CELLS, side, 3)
    cells = (rows.sum(3) / side**2).round().astype(np.uint8)
    return np.concatenate([bits, cells.reshape(len(pixels), -1)], axis=1)


@cache
def _cosines() -> NDArray[np.float32]:
    """The first 16 rows of the orthonormal DCT-II matrix of size 32, float32 [16, 32]."""
    k, n = np.arange(_LOW)[:, None], np.arange(THUMB)[None]
    basis = np.cos(np.pi * (2 * n + 1) * k / (2 * THUMB)) * np.sqrt(2 / THUMB)
    basis[0] /= np.sqrt(2)
    return basis.astype(np.float32)
