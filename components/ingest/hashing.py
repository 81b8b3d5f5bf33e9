"""How a picture looks, in 80 bytes, and the search for near-identical pictures that does not compare all with all."""

from collections.abc import Iterable, Iterator, Sequence
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
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_NOISE = 16.0
_CONTRAST, _LIGHT = 0.45, 72.0
_CHUNK = 1 << 16

Indices = NDArray[np.int64]
Pairs = NDArray[np.int64]
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
    side = THUMB // _CELLS
    # Rows first: numpy adds whole rows many times faster than it adds over two axes at once.
    rows = pixels.reshape(-1, _CELLS, side, THUMB * 3).sum(2).reshape(-1, _CELLS, _CELLS, side, 3)
    cells = (rows.sum(3) / side**2).round().astype(np.uint8)
    return np.concatenate([bits, cells.reshape(len(pixels), -1)], axis=1)


@cache
def _cosines() -> NDArray[np.float32]:
    """The first 16 rows of the orthonormal DCT-II matrix of size 32, float32 [16, 32]."""
    k, n = np.arange(_LOW)[:, None], np.arange(THUMB)[None]
    basis = np.cos(np.pi * (2 * n + 1) * k / (2 * THUMB)) * np.sqrt(2 / THUMB)
    basis[0] /= np.sqrt(2)
    return basis.astype(np.float32)


def near_pairs(looks: Looks, distance: int) -> Pairs:
    """Which looks [N, 80] are near-identical, as a spanning forest: index pairs [P, 2], i < j, sorted, P < N.

    Near are two looks whose bits differ in at most `distance` (≤ 31) places and whose cells agree in colour. What the pairs connect
    is exactly what all near pairs would connect, found without comparing all with all: of 16 bands of 16 bits, two hashes at a
    distance of at most 31 have one in which they differ in at most one bit (pigeonhole), so only such pairs are compared (multi-index
    hashing: Norouzi et al., CVPR 2012). Pairs that are connected already are not compared again, so that many like pictures cost little.
    """
    forest = _Forest(len(looks))
    if len(looks) > 1 and distance >= 0:
        bits = np.ascontiguousarray(looks[:, :_HASH])
        words, bands, cells = bits.view(np.uint64), bits.view(np.uint16), looks[:, _HASH:]
        flips = [0] if distance < _BANDS else [0, *(1 << bit for bit in range(16))]
        for band in np.ascontiguousarray(bands.T):
            for pairs in _matches(band, flips, forest):
                forest.join(_close(forest.apart(pairs), words, cells, distance))
    return np.array(sorted(forest.edges), np.int64).reshape(-1, 2)


class _Forest:
    """Disjoint sets of indices, with the pairs that joined them. `root` is the smallest index of each one's set."""

    def __init__(self, size: int) -> None:
        self.root = np.arange(size)
        self.edges: list[tuple[int, int]] = []

    def apart(self, pairs: Pairs) -> Pairs:
        """The pairs whose ends are not connected yet."""
        return pairs[self.root[pairs[:, 0]] != self.root[pairs[:, 1]]]

    def join(self, pairs: Pairs) -> None:
        """Connect the ends of every pair. In each round every root that has pairs joins its smallest partner: no cycles, few rounds."""
        while len(pairs := self.apart(pairs)):
            ends = np.sort(self.root[pairs], axis=1)
            order = np.lexsort((ends[:, 0], ends[:, 1]))
            larger, first = np.unique(ends[order, 1], return_index=True)
            chosen = order[first]
            self.edges += [(int(left), int(right)) for left, right in pairs[chosen]]
            parent = np.arange(len(self.root))
            parent[larger] = ends[chosen, 0]
            while (parent != parent[parent]).any():
                parent = parent[parent]
            self.root = parent[self.root]


def _matches(band: NDArray[np.uint16], flips: Iterable[int], forest: _Forest) -> Iterator[Pairs]:
    """Pairs i < j with band[i] == band[j] ^ flip for any of the flips, some ten thousand at a time, so that memory stays bounded.

    Values that only members of i's own set have are passed over.
    """
    order = np.argsort(band, kind="stable")
    counts = np.bincount(band, minlength=1 << 16)
    starts = np.cumsum(counts) - counts
    owner = _owners(forest.root[order], starts, counts)
    for flip in flips:
        wanted = band ^ np.uint16(flip)
        rows = np.flatnonzero((counts[wanted] > 0) & (owner[wanted] != forest.root))
        yield from _spread(rows, starts[wanted[rows]], counts[wanted[rows]], order)


def _owners(roots: Indices, starts: Indices, counts: Indices) -> Indices:
    """Value → the root that all who have it share, or -1. `roots` are in the order of their values."""
    if not len(roots):
        return np.full(len(starts), -1)
    changes = np.concatenate([[0], np.cumsum(roots[1:] != roots[:-1])])
    first = np.minimum(starts, len(roots) - 1)
    last = np.maximum(starts + counts - 1, first)
    return np.where(changes[first] == changes[last], roots[first], -1)


def _spread(rows: Indices, starts: Indices, counts: Indices, order: Indices) -> Iterator[Pairs]:
    """Each row i with each of order[starts : starts + counts] that is larger than i."""
    ends = np.cumsum(counts)
    first = 0
    while first < len(rows):
        done = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + _CHUNK, "right")))
        part = slice(first, last)
        left = np.repeat(rows[part], counts[part])
        offset = np.arange(len(left)) - np.repeat(ends[part] - counts[part] - done, counts[part])
        right = order[np.repeat(starts[part], counts[part]) + offset]
        keep = left < right
        yield np.stack([left[keep], right[keep]], axis=1)
        first = last


def _shape_and_light(cells: Looks) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cells about their mean [N, 16, 3], and that mean [N, 3]."""
    colours = cells.reshape(-1, _CELLS * _CELLS, 3).astype(np.float32)
    light = colours.mean(1)
    return colours - light[:, None], light


def _close(pairs: Pairs, words: NDArray[np.uint64], cells: Looks, distance: int) -> Pairs:
    near = np.bitwise_count(words[pairs[:, 0]] ^ words[pairs[:, 1]]).sum(-1, dtype=np.int64) <= distance
    pairs = pairs[near]
    (left, left_light), (right, right_light) = (_shape_and_light(cells[pairs[:, side]]) for side in (0, 1))
    apart = np.abs(left - right).mean((1, 2))
    contrast = (np.abs(left).mean((1, 2)) + np.abs(right).mean((1, 2))) / 2
    alike = (apart <= _CONTRAST * contrast + 1) & (np.abs(left_light - right_light).max(-1, initial=0) <= _LIGHT)
    return pairs[alike]
