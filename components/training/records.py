"""Reading the examples artifact (components/core/examples.py) with tf.data."""

from pathlib import Path
from typing import Any

import tensorflow as tf

from components.core.examples import Split, read_examples

_FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/label": tf.io.FixedLenFeature([], tf.int64),
    "image/key": tf.io.FixedLenFeature([], tf.string),
    "image/slices": tf.io.FixedLenFeature([], tf.string, default_value="{}"),
}


def parse_example(serialized: Any) -> dict[str, Any]:
    """One serialized tf.train.Example → `image` (encoded bytes), `label` (int64), `key`, `slices` (JSON)."""
    parsed: Any = tf.io.parse_single_example(serialized, _FEATURES)
    return {name.removeprefix("image/").replace("encoded", "image"): value for name, value in parsed.items()}


def read_split(root: Path, split: Split) -> Any:
    """Every example of a split in shard order (deterministic), as a tf.data.Dataset of `parse_example` dictionaries."""
    shards = read_examples(root).shard_paths(root, split)
    records = tf.data.TFRecordDataset(shards, num_parallel_reads=None)
    return records.map(parse_example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
