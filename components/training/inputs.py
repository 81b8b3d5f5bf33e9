"""The one input path of both trainings: shards → parallel interleave → decode and resize → cache → shuffle → augment → prefetch.

Every order and every random change is a function of the seed and the epoch alone, however many cores read and decode.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from components.core.errors import DataError
from components.core.examples import Split, read_examples
from components.core.preprocessing import Preprocessing
from components.training.augment import augment
from components.training.records import parse_example
from components.training.settings import AugmentSettings
from components.training.transform import decode_and_resize

# Fixed, not AUTOTUNE: the number of files that are read in turns decides the order of examples.
_INTERLEAVED_FILES = 8
_SHUFFLE_BYTES = 256 << 20
_SHUFFLE_LEAST = 1024


class Inputs:
    """One split as pixels and labels, decoded once and cached."""

    def __init__(self, root: Path, split: Split, contract: Preprocessing, *, cache_megabytes: int) -> None:
        """Read and decode `split` of the examples at `root`; `DataError` if it holds none, or not what its manifest says."""
        examples = read_examples(root)
        self.count, self.classes = examples.splits[split].count, len(examples.labels)
        if not self.count:
            raise DataError(f"the {split} split has no examples", where=str(root), fix="Give more images, or larger split fractions")
        self.image_bytes = contract.height * contract.width * 3
        self._file = _cache_file(self.count * self.image_bytes, cache_megabytes)
        pixels = _decoded(examples.shard_paths(root, split), contract).apply(tf.data.experimental.assert_cardinality(self.count))
        self._pixels = pixels.cache(f"{self._file.name}/{split}" if self._file else "")
        self.labels = self._load(f"{root}, {split}")

    def plain(self, batch: int) -> Any:
        """Unchanged images in order: batches of float32 [N, H, W, 3] and one-hot labels float32 [N, C]."""
        return self._pixels.batch(batch).map(self._target, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    def view(self, batch: int, view: int, settings: AugmentSettings, seed: int) -> Any:
        """Augmented images in order, batches as of `plain`; each `view` is another draw."""
        return _augmented(self._pixels.batch(batch), settings, [seed, 1 + view]).map(self._target).prefetch(tf.data.AUTOTUNE)

    def epoch(self, batch: int, epoch: int, settings: AugmentSettings, seed: int, weights: Sequence[float]) -> Any:
        """Shuffled, augmented images of one epoch: (pixels, one-hot labels, sample weights) batches, whole ones only if there is one."""
        buffer = min(self.count, max(_SHUFFLE_LEAST, _SHUFFLE_BYTES // self.image_bytes))
        shuffled = self._pixels.shuffle(buffer, seed=seed * 100_003 + epoch, reshuffle_each_iteration=False)
        batches = shuffled.batch(batch, drop_remainder=self.count >= batch)
        weigh = tf.constant(weights, tf.float32)
        pixels = _augmented(batches, settings, [seed, 1_000_000 + epoch])
        return pixels.map(lambda x, y: (*self._target(x, y), tf.gather(weigh, y))).prefetch(tf.data.AUTOTUNE)

    def steps(self, batch: int) -> int:
        """Batches in one `epoch`."""
        return max(1, self.count // batch)

    def _load(self, where: str) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Fill the cache; every label in the order of `plain`, int64 [count]."""
        try:
            batches = [labels.numpy() for _, labels in self._pixels.batch(256)]
        except tf.errors.OpError as error:
            raise DataError(f"the examples can't be read ({error.message})", where=where, fix="Run the ingest step again") from None
        return np.concatenate(batches)

    def _target(self, pixels: Any, labels: Any) -> tuple[Any, Any]:
        return tf.cast(pixels, tf.float32), tf.one_hot(labels, self.classes)


def _decoded(shards: list[str], contract: Preprocessing) -> Any:
    def decode(serialized: Any) -> tuple[Any, Any]:
        example = parse_example(serialized)
        return decode_and_resize(example["image"], contract), example["label"]

    files = tf.data.Dataset.from_tensor_slices(shards)
    records = files.interleave(
        tf.data.TFRecordDataset, cycle_length=_INTERLEAVED_FILES, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    return records.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _augmented(batches: Any, settings: AugmentSettings, seed: list[int]) -> Any:
    def change(number: Any, batch: tuple[Any, Any]) -> tuple[Any, Any]:
        # Two words of seed: the first two numbers are mixed into one, the batch's number is the other.
        return augment(batch[0], tf.stack([tf.constant(seed[0] * 1_000_003 + seed[1], tf.int64), number]), settings), batch[1]

    return batches.enumerate().map(change, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _cache_file(size: int, megabytes: int) -> tempfile.TemporaryDirectory[str] | None:
    return None if size <= megabytes << 20 else tempfile.TemporaryDirectory(prefix="dual-pixels-", ignore_cleanup_errors=True)
