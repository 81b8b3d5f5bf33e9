"""What the machine offers: GPUs, their 16-bit arithmetic, and repeatable arithmetic."""

import contextlib
import functools
import json
import os
from collections.abc import Iterator
from typing import Any, Literal

import keras
import tensorflow as tf

from components.core.errors import UsageError

Precision = Literal["float32", "mixed_float16", "mixed_bfloat16"]


def make_repeatable(seed: int) -> None:
    """Seed Python, NumPy and TensorFlow; without a GPU also let TensorFlow use repeatable algorithms only (for good)."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed % 2**31)
    # On GPUs repeatable algorithms are slow, and some operations have none and would fail.
    if not tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()


def choose_precision(mode: Literal["auto", "on", "off"], capabilities: list[tuple[int, int]], key: str = "mixed_precision") -> Precision:
    """The arithmetic for GPUs of these compute capabilities: bfloat16 from 8.0 on, float16 from 7.0 on, else float32.

    Raises `UsageError` naming the settings `key` if it is "on" and no GPU here has 16-bit arithmetic.
    """
    weakest = min(capabilities, default=(0, 0))
    if mode == "off" or weakest < (7, 0):
        if mode == "on":
            found = f"the GPUs here have compute capability {weakest[0]}.{weakest[1]}" if capabilities else "no GPU was found"
            raise UsageError(f"it is on, but {found}", where=f"settings key {key}", fix="Set auto or off, or use a newer GPU")
        return "float32"
    return "mixed_bfloat16" if weakest >= (8, 0) else "mixed_float16"


def gpu_capabilities() -> list[tuple[int, int]]:
    """Compute capability of every visible GPU; a GPU that tells none counts as (0, 0)."""
    details = (tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU"))
    return [tuple(detail.get("compute_capability", (0, 0))) for detail in details]


@functools.cache
def make_strategy() -> Any:
    """Copies on all GPUs of all workers that $TF_CONFIG names, else on all GPUs if there are several, else TensorFlow's default.

    One for the whole process: two would use the same keys for their collective operations, and TensorFlow mixes them up.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if worker_count() > 1:
        way = tf.distribute.experimental.CommunicationImplementation
        options = tf.distribute.experimental.CommunicationOptions(implementation=way.NCCL if gpus else way.RING)
        return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    return tf.distribute.MirroredStrategy() if len(gpus) > 1 else one_device()


def worker_count() -> int:
    """How many workers train together, as $TF_CONFIG says; 1 without it."""
    return len(_told().get("cluster", {}).get("worker", [])) or 1


def is_chief() -> bool:
    """Whether this process keeps the checkpoints and writes the model: the first worker, or the only one."""
    return int(_told().get("task", {}).get("index", 0)) == 0


def _told() -> dict[str, Any]:
    return json.loads(os.environ.get("TF_CONFIG") or "{}")


def one_device() -> Any:
    """TensorFlow's default: everything on the first GPU, or on the CPU."""
    return tf.distribute.get_strategy()


@contextlib.contextmanager
def precision(policy: Precision) -> Iterator[None]:
    """Layers that are built inside compute in `policy`; the policy before is restored."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
