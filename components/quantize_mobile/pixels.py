"""Images of a split as the mobile model takes them: uint8 pixels by the preprocessing contract, through the trainings' own input path."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.core.errors import DataError
from components.core.examples import Split
from components.core.preprocessing import Preprocessing
from components.training.records import read_split
from components.training.transform import decode_and_resize


@dataclass(frozen=True)
class Pixels:
    """Some images of a split."""

    images: NDArray[np.uint8]
    """[N, H, W, 3]"""
    labels: NDArray[np.int64]
    """[N]"""

    def __len__(self) -> int:
        return len(self.labels)


def load_pixels(root: Path, split: Split, contract: Preprocessing, limit: int, seed: int) -> Pixels:
    """At most `limit` images, as many of each class as there are, in turns: every prefix is balanced too.

    The choice is random but the same for the same seed. Raises `DataError` if the split has no examples.
    """
    labels = np.array([int(example["label"]) for example in read_split(root, split)], np.int64)
    if not len(labels):
        raise DataError(f"the {split} split has no examples", where=str(root), fix="Give more images, or larger split fractions")
    order = balanced_order(labels, seed)[:limit]
    kept = dict(_decode(root, split, contract, order))
    return Pixels(np.stack([kept[index] for index in order.tolist()]), labels[order])


def balanced_order(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """A shuffled order of all indices in which the classes take turns until the smaller ones run out."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    turn = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        mine = shuffled[labels[shuffled] == label]
        turn[mine] = np.arange(len(mine))
    return shuffled[np.argsort(turn[shuffled], kind="stable")]


def _decode(root: Path, split: Split, contract: Preprocessing, indices: NDArray[np.int64]) -> Any:
    wanted = tf.constant(np.isin(np.arange(indices.max() + 1), indices))
    chosen = read_split(root, split).take(len(wanted)).enumerate().filter(lambda index, _: wanted[index])
    decoded = chosen.map(
        lambda index, example: (index, decode_and_resize(example["image"], contract)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    for index, image in decoded.prefetch(tf.data.AUTOTUNE):
        yield int(index), image.numpy()
