"""Perceptual hashes, and the search for pairs of near-identical images that does not compare all with all."""

from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

THUMB = 32
_LOW = 16
_BANDS = 16
HASH_BYTES = _LOW * _LOW // 8
_BLOCK = 512


def perceptual_hash(image: Image.Image) -> bytes:
    """256 bits that survive scaling and compression: signs of the 16×16 lowest frequencies of the gray image about their median.

    The method of pHash (Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010), with 16×16 for its 8×8.
    """
    small = image.resize((THUMB, THUMB), Image.Resampling.BOX, reducing_gap=1.0) if image.size != (THUMB, THUMB) else image
    gray = np.asarray(small.convert("L"), dtype=np.float32)
    basis = _cosines()
    low = (basis @ gray @ basis.T).ravel()
    return np.packbits(low > np.median(low)).tobytes()


@cache
def _cosines() -> NDArray[np.float32]:
    """The first 16 rows of the orthonormal DCT-II matrix of size 32, float32 [16, 32]."""
    k, n = np.arange(_LOW)[:, None], np.arange(THUMB)[None]
    basis = np.cos(np.pi * (2 * n + 1) * k / (2 * THUMB)) * np.sqrt(2 / THUMB)
    basis[0] /= np.sqrt(2)
    return basis.astype(np.float32)


def near_pairs(hashes: NDArray[np.uint8], distance: int) -> NDArray[np.int64]:
    """Index pairs [P, 2], i < j, sorted, of hashes [N, 32] that differ in at most `distance` (≤ 15) bits.

    Exact: two hashes that differ in at most 15 bits agree in at least one of their 16 bands of 16 bits (pigeonhole), so only
    hashes that share a band are compared.
    """
    if len(hashes) < 2 or distance < 0:
        return np.empty((0, 2), np.int64)
    words = np.ascontiguousarray(hashes).view(np.uint64)
    bands = np.ascontiguousarray(hashes).view(np.uint16)
    found = [pairs for band in bands.T for bucket in _buckets(band) for pairs in _compare(words, bucket, distance)]
    return np.unique(np.concatenate(found), axis=0) if found else np.empty((0, 2), np.int64)


def _buckets(band: NDArray[np.uint16]) -> Iterator[NDArray[np.int64]]:
    """Groups of at least two indices with the same value, each sorted."""
    order = np.argsort(band, kind="stable")
    starts = np.flatnonzero(np.diff(band[order])) + 1
    return (group for group in np.split(order, starts) if len(group) > 1)


def _compare(words: NDArray[np.uint64], bucket: NDArray[np.int64], distance: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(bucket), _BLOCK):
        block, rest = bucket[start : start + _BLOCK], bucket[start:]
        bits = np.bitwise_count(words[block][:, None] ^ words[rest][None]).sum(-1, dtype=np.int64)
        left, right = np.nonzero(np.triu(bits <= distance, 1))
        if len(left):
            yield np.stack([block[left], rest[right]], axis=1)
