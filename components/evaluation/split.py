"""A model on every example of a split, and what the examples are like, in one pass."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.core.errors import DataError
from components.core.examples import Split, read_examples
from components.core.shards import WHOLE, Shard
from components.evaluation.evaluation import Predictions
from components.evaluation.image_model import ImageModel
from components.evaluation.slices import Look, look_at
from components.training.records import read_split


@dataclass(frozen=True)
class Batch:
    """Consecutive examples."""

    keys: list[str]
    labels: list[int]
    images: list[bytes]
    slices: list[dict[str, str]]


@dataclass(frozen=True)
class Observed:
    """The answers of a model, and for each example its own slices and its look; in the order of the examples."""

    predictions: Predictions
    slices: list[dict[str, str]]
    looks: list[Look]


def read_batches(root: Path, split: Split, size: int, shard: Shard = WHOLE) -> Iterator[Batch]:
    """The batches of a split in shard order, `size` examples each, of which a shard has its share; `DataError` if the split is empty."""
    count = read_examples(root).splits[split].count
    if count == 0:
        raise DataError(f"the split '{split}' has no examples", where=str(root), fix="Ingest more images, or set `split` to another one")
    first, end = shard.of(-(-count // size))
    for batch in read_split(root, split).skip(first * size).take((end - first) * size).batch(size).as_numpy_iterator():
        yield Batch(
            keys=[key.decode() for key in batch["key"]],
            labels=[int(label) for label in batch["label"]],
            images=list(batch["image"]),
            slices=[json.loads(text) for text in batch["slices"]],
        )


def observe(model: ImageModel, root: Path, split: Split, size: int, shard: Shard = WHOLE) -> Observed:
    """Ask the model about every example of the shard, and look at each image."""
    batches, slices, looks = [], [], []
    for batch in read_batches(root, split, size, shard):
        batches.append((batch.keys, batch.labels, model.predict(batch.images)))
        slices += batch.slices
        looks += [look_at(image) for image in batch.images]
    return Observed(join(batches, len(model.labels)), slices, looks)


def read_images(root: Path, split: Split, keys: Sequence[str]) -> dict[str, bytes]:
    """The encoded images of some examples by key."""
    wanted = set(keys)
    found: dict[str, bytes] = {}
    for batch in read_batches(root, split, 64) if wanted else ():
        found |= {key: image for key, image in zip(batch.keys, batch.images, strict=True) if key in wanted}
        if len(found) == len(wanted):
            break
    return found


def join(batches: Sequence[tuple[list[str], list[int], NDArray[np.float32]]], classes: int) -> Predictions:
    """The answers of one batch after another: keys, labels and probabilities [n, `classes`] of each; there may be none."""
    return Predictions(
        keys=np.array([key for keys, _, _ in batches for key in keys], dtype=np.str_),
        labels=np.array([label for _, labels, _ in batches for label in labels], dtype=np.int64),
        probabilities=np.concatenate([np.empty((0, classes), np.float32), *(probabilities for _, _, probabilities in batches)]),
    )
