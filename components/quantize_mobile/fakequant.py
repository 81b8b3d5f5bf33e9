"""int8 arithmetic, imitated in floats: what the converter will do to weights and activations, with gradients that pass through."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from components.quantize_mobile.network import Node

Ranges = Mapping[str, tuple[float, float]]
"""Tensor name → the smallest and the largest value that its 256 int8 codes stand for."""
UNQUANTIZED = ("softmax", "pad", "flatten")
"""Kinds of nodes whose output has no range of its own: padding and reshaping keep their input's, softmax has a fixed one."""


def fake_weights(node: Node, kernel: Any) -> Any:
    """A kernel rounded to int8 codes in [-127, 127] with one symmetric scale per output channel, like the converter's."""
    if node.kind == "depthwise":
        return _per_channel(tf.squeeze(kernel, -1))[..., tf.newaxis]
    return _per_channel(kernel)


def fake_activations(ranges: Ranges) -> Callable[[Node, Any], Any]:
    """A tap that rounds every tensor that has a range to 256 codes."""

    def tap(node: Node, value: Any) -> Any:
        bounds = ranges.get(node.name)
        return value if bounds is None else tf.quantization.fake_quant_with_min_max_args(value, *bounds)

    return tap


def _per_channel(kernel: Any) -> Any:
    largest = tf.maximum(tf.reduce_max(tf.abs(tf.stop_gradient(kernel)), axis=list(range(len(kernel.shape) - 1))), 1e-8)
    return tf.quantization.fake_quant_with_min_max_vars_per_channel(kernel, -largest, largest, narrow_range=True)
