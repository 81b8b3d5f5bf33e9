"""How a picture looks, in 80 bytes, and the search for near-identical pictures that does not compare all with all."""

from collections.abc import Iterator
from functools import cache
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from PIL import Image

THUMB = 32
LOOK_BYTES = 80
_LOW = 16
_HASH = _LOW * _LOW // 8
_CELLS = 4
_BANDS = 16
_FLAT = 2.0
_COLOUR = 48
_CHUNK = 1 << 20

Pairs = NDArray[np.int64]


def picture_look(image: Image.Image) -> bytes:
    """256 bits of shape, then 4×4 RGB cells of colour (48 bytes); both survive scaling, compression and small changes of light.

    The bits are the signs of the 16×16 lowest frequencies of the gray picture about their median: pHash (Zauner, Implementation and
    Benchmarking of Perceptual Image Hash Functions, 2010) with 16×16 for its 8×8. A flat picture has no shape: its bits are a digest.
    """
    small = image.convert("RGB") if image.size == (THUMB, THUMB) else image.resize((THUMB, THUMB), Image.Resampling.BOX, reducing_gap=1.0)
    if small.mode != "RGB":
        small = small.convert("RGB")
    gray = np.asarray(small.convert("L"), dtype=np.float32)
    cells = small.resize((_CELLS, _CELLS), Image.Resampling.BOX).tobytes()
    if gray.std() < _FLAT:
        return sha256(small.tobytes()).digest() + cells
    basis = _cosines()
    low = (basis @ gray @ basis.T).ravel()
    return np.packbits(low > np.median(low)).tobytes() + cells


@cache
def _cosines() -> NDArray[np.float32]:
    """The first 16 rows of the orthonormal DCT-II matrix of size 32, float32 [16, 32]."""
    k, n = np.arange(_LOW)[:, None], np.arange(THUMB)[None]
    basis = np.cos(np.pi * (2 * n + 1) * k / (2 * THUMB)) * np.sqrt(2 / THUMB)
    basis[0] /= np.sqrt(2)
    return basis.astype(np.float32)


def near_pairs(looks: NDArray[np.uint8], distance: int) -> Pairs:
    """Index pairs [P, 2], i < j, sorted, of looks [N, 80] of like colour whose bits differ in at most `distance` (≤ 31) places.

    Exact, without comparing all with all: of 16 bands of 16 bits, two hashes at a distance of at most 31 have one in which they
    differ in at most one bit (pigeonhole), so only such pairs are compared (multi-index hashing: Norouzi et al., CVPR 2012).
    """
    if len(looks) < 2 or distance < 0:
        return np.empty((0, 2), np.int64)
    bits = np.ascontiguousarray(looks[:, :_HASH])
    words, bands, cells = bits.view(np.uint64), bits.view(np.uint16), looks[:, _HASH:].astype(np.int16)
    flips = [0] if distance < _BANDS else [0, *(1 << bit for bit in range(16))]
    found = [
        _close(pairs, words, cells, distance)
        for band in np.ascontiguousarray(bands.T)
        for flip in flips
        for pairs in _matches(band, np.uint16(flip))
    ]
    return np.unique(np.concatenate(found), axis=0) if found else np.empty((0, 2), np.int64)


def _matches(band: NDArray[np.uint16], flip: np.uint16) -> Iterator[Pairs]:
    """Pairs i < j with band[i] == band[j] ^ flip, in chunks of about a million, so that memory stays bounded."""
    order = np.argsort(band, kind="stable")
    ordered, wanted = band[order], band ^ flip
    starts = np.searchsorted(ordered, wanted, "left")
    counts = np.searchsorted(ordered, wanted, "right") - starts
    ends = np.cumsum(counts)
    first = 0
    while first < len(band):
        last = max(first + 1, int(np.searchsorted(ends, (ends[first - 1] if first else 0) + _CHUNK, "right")))
        rows = np.arange(first, last)
        left = np.repeat(rows, counts[rows])
        offset = np.arange(len(left)) - np.repeat(ends[rows] - counts[rows] - (ends[first - 1] if first else 0), counts[rows])
        right = order[starts[left] + offset]
        keep = left < right
        yield np.stack([left[keep], right[keep]], axis=1)
        first = last


def _close(pairs: Pairs, words: NDArray[np.uint64], cells: NDArray[np.int16], distance: int) -> Pairs:
    left, right = pairs.T
    near = np.bitwise_count(words[left] ^ words[right]).sum(-1, dtype=np.int64) <= distance
    pairs = pairs[near]
    colour = np.abs(cells[pairs[:, 0]] - cells[pairs[:, 1]]).max(-1, initial=0)
    return pairs[colour <= _COLOUR]
