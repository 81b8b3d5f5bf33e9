"""The search for near-identical pictures among their looks: by bands of the hash, or all with all where that costs less."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.ingest.hashing import CELLS, HASH_BYTES, Looks

_BANDS = 16
_CONTRAST, _LIGHT = 0.45, 72.0
_CHUNK = 1 << 16
_ALL_WITH_ALL = 4096
_MATCH_COST = 64

Indices = NDArray[np.int64]
Pairs = NDArray[np.int64]
Words = NDArray[np.uint64]
Band = NDArray[np.uint16]


def near_pairs(looks: Looks, distance: int) -> Pairs:
    """Which looks [N, 80] are near-identical, as a spanning forest: index pairs [P, 2], i < j, sorted, P < N.

    Near are two looks whose bits differ in at most `distance` (≤ 31) places and whose cells agree in colour. What the pairs connect
    is exactly what all near pairs would connect. Of 16 bands of 16 bits, two hashes at a distance of at most 31 have one in which they
    differ in at most one bit (pigeonhole), so only such pairs need comparing (multi-index hashing: Norouzi et al., CVPR 2012). Pairs
    that are connected already are not compared again, so that many like pictures cost little.

    Few pictures, and smooth ones, whose bands are mostly alike, are compared all with all, which costs less there. That finds who is
    connected, and the bands then say by which pairs, so that both ways give the same forest.
    """
    if len(looks) < 2 or distance < 0:
        return np.empty((0, 2), np.int64)
    search = _Search(looks, distance)
    groups = None if search.is_selective() else search.groups()
    edges = groups.couples() if groups and groups.are_couples() else search.edges(groups)
    return np.array(sorted(edges), np.int64).reshape(-1, 2)


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


class _Groups:
    """Who is connected, found beforehand: only pairs within a group can be near."""

    def __init__(self, forest: _Forest) -> None:
        self._group = forest.root
        self._sizes = np.bincount(self._group, minlength=len(self._group))
        self.members = np.flatnonzero(self._sizes[self._group] > 1)
        self.edges = len(forest.edges)
        """How many pairs connect all of them."""

    def are_couples(self) -> bool:
        """Whether no group has more than two members: then there is only one way to connect them."""
        return int(self._sizes.max()) <= 2

    def couples(self) -> list[tuple[int, int]]:
        """The two members of every group."""
        return [
            (root, other) for other, root in zip(self.members.tolist(), self._group[self.members].tolist(), strict=True) if root != other
        ]

    def order(self, band: Band) -> tuple[Indices, Indices]:
        """(codes, members): the members by group and band, and the codes of both."""
        codes = self._group[self.members] << 16 | band[self.members]
        order = np.argsort(codes, kind="stable")
        return codes[order], self.members[order]

    def wanted(self, rows: Indices, values: Band) -> Indices:
        """The codes of what rows want: a value of the band, in their own group."""
        return self._group[rows] << 16 | values


@dataclass
class _Candidates:
    """For each of `rows`, order[start : start + count]; `sizes` is how many there would be in all groups together."""

    rows: Indices
    starts: Indices
    counts: Indices
    sizes: Indices
    order: Indices


class _Search:
    """Looks, cut into the columns that the comparisons read."""

    def __init__(self, looks: Looks, distance: int) -> None:
        # Views, not copies: looks may be a column of a table that is much wider.
        bits = looks[:, :HASH_BYTES]
        self._distance, self._cells = distance, looks[:, HASH_BYTES:]
        self._words, self._bands = bits.view(np.uint64), bits.view(np.uint16).T
        self._flips = [0] if distance < _BANDS else [0, *(1 << bit for bit in range(16))]

    def is_selective(self) -> bool:
        """Whether the bands leave few enough candidates. A candidate costs some ten times as much as a pair of all with all."""
        size = len(self._words)
        if size <= _ALL_WITH_ALL:
            return False
        alike = sum(int((np.bincount(band).astype(np.int64) ** 2).sum()) for band in self._bands)
        return alike * _MATCH_COST < size**2

    def groups(self) -> _Groups:
        """Who is connected, by comparing all with all."""
        forest = _Forest(len(self._words))
        for pairs in self._half_alike(forest):
            forest.join(self._close(pairs))
        return _Groups(forest)

    def _half_alike(self, forest: _Forest) -> Iterator[Pairs]:
        """Pairs, not connected yet, that differ in at most `distance` places of the first half of their bits.

        That half decides most, being the lower frequencies.
        """
        left, right = (np.ascontiguousarray(self._words[:, word]) for word in (0, 1))
        size, first = len(left), 0
        while first < size:
            last = min(size, first + max(1, _CHUNK // (size - first)))
            apart = np.bitwise_count(left[first:last, None] ^ left[None, first:])
            apart += np.bitwise_count(right[first:last, None] ^ right[None, first:])
            alike = apart <= self._distance
            if forest.edges:
                alike &= forest.root[first:last, None] != forest.root[None, first:]
            rows, columns = np.divmod(np.flatnonzero(alike.ravel()), size - first)
            yield np.stack([rows, columns], axis=1)[rows < columns] + first
            first = last

    def edges(self, groups: _Groups | None) -> list[tuple[int, int]]:
        """The pairs that connect what is near, found band by band."""
        forest = _Forest(len(self._words))
        for band in self._bands:
            for pairs in _matches(np.ascontiguousarray(band), self._flips, forest, groups):
                forest.join(self._close(forest.apart(pairs)))
                if groups and len(forest.edges) == groups.edges:
                    return forest.edges
        return forest.edges

    def _close(self, pairs: Pairs) -> Pairs:
        words, cells = self._words, self._cells
        near = np.bitwise_count(words[pairs[:, 0]] ^ words[pairs[:, 1]]).sum(-1, dtype=np.int64) <= self._distance
        pairs = pairs[near]
        (left, left_light), (right, right_light) = (_shape_and_light(cells[pairs[:, side]]) for side in (0, 1))
        apart = np.abs(left - right).mean((1, 2))
        contrast = (np.abs(left).mean((1, 2)) + np.abs(right).mean((1, 2))) / 2
        alike = (apart <= _CONTRAST * contrast + 1) & (np.abs(left_light - right_light).max(-1, initial=0) <= _LIGHT)
        return pairs[alike]


def _shape_and_light(cells: Looks) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cells about their mean [N, 16, 3], and that mean [N, 3]."""
    colours = cells.reshape(-1, CELLS * CELLS, 3).astype(np.float32)
    light = colours.mean(1)
    return colours - light[:, None], light


def _matches(band: Band, flips: Iterable[int], forest: _Forest, groups: _Groups | None) -> Iterator[Pairs]:
    """Pairs i < j with band[i] == band[j] ^ flip for any of the flips, some ten thousand at a time, so that memory stays bounded.

    Values that only members of i's own set have are passed over. Of the pairs of different groups none is given.
    """
    order = np.argsort(band, kind="stable")
    counts = np.bincount(band, minlength=1 << 16)
    starts = np.cumsum(counts) - counts
    owner = _owners(forest.root[order], starts, counts)
    codes, members = groups.order(band) if groups else (order, order)
    for flip in flips:
        wanted = band ^ np.uint16(flip)
        rows = np.flatnonzero((counts[wanted] > 0) & (owner[wanted] != forest.root))
        values = wanted[rows]
        if groups:
            codes_wanted = groups.wanted(rows, values)
            first, last = (np.searchsorted(codes, codes_wanted, side) for side in ("left", "right"))
            found = _Candidates(rows, first, last - first, counts[values], members)
        else:
            found = _Candidates(rows, starts[values], counts[values], counts[values], order)
        yield from _spread(found)


def _owners(roots: Indices, starts: Indices, counts: Indices) -> Indices:
    """Value → the root that all who have it share, or -1. `roots` are in the order of their values."""
    if not len(roots):
        return np.full(len(starts), -1)
    changes = np.concatenate([[0], np.cumsum(roots[1:] != roots[:-1])])
    first = np.minimum(starts, len(roots) - 1)
    last = np.maximum(starts + counts - 1, first)
    return np.where(changes[first] == changes[last], roots[first], -1)


def _spread(found: _Candidates) -> Iterator[Pairs]:
    """Each row i with each of its candidates that is larger than i."""
    if not found.counts.any():
        return
    # By the sizes, so that groups don't change which pairs come together: the forest depends on that.
    for part in _parts(found.sizes):
        counts = found.counts[part]
        if counts.any():
            left = np.repeat(found.rows[part], counts)
            offset = np.arange(len(left)) - np.repeat(np.cumsum(counts) - counts, counts)
            right = found.order[np.repeat(found.starts[part], counts) + offset]
            keep = left < right
            yield np.stack([left[keep], right[keep]], axis=1)


def _parts(sizes: Indices) -> Iterator[slice]:
    """Slices whose sizes add up to some ten thousand; whatever is larger stands alone."""
    ends = np.cumsum(sizes)
    first = 0
    while first < len(sizes):
        done = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + _CHUNK, "right")))
        yield slice(first, last)
        first = last
