"""int8 arithmetic, imitated in floats: what the converter will do to weights and activations, with gradients that pass through."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from components.quantize_mobile.network import Network, Node

Ranges = Mapping[str, tuple[float, float]]
"""Tensor name → the smallest and the largest value that its 256 int8 codes stand for."""
DEAD_BELOW = -3.0
"""Hard-swish is 0 at and below this: what it reads needs no codes there."""
_PACE = 20.0
"""Of a range's logarithm, in units of the weights' learning rate: weights are small, ranges are not."""
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


class LearnedRanges:
    """Ranges that are trained with the weights: each end is its first value times a factor that starts at 1.

    The gradients are those of clipping (Choi et al. 2018, "PACT", equation 3, for both ends). Pixels and what the rescaling makes of
    them keep their ranges, and the lower end below a hard-swish stays at -3.
    """

    def __init__(self, network: Network, ranges: Ranges) -> None:
        """Start from `ranges`."""
        import keras

        fixed = {node.name for node in network.nodes if node.kind == "input" or (node.kind == "affine" and node.activation == "")}
        self._first = dict(ranges)
        self._dead = {name for name, (low, _) in ranges.items() if low < DEAD_BELOW and network.feeds_hard_swish(name)}
        self._ends = {name: keras.Variable([0.0, 0.0], name="ends") for name in ranges if name not in fixed}

    @property
    def variables(self) -> list[Any]:
        """What is trained."""
        return list(self._ends.values())

    def tap(self, node: Node, value: Any) -> Any:
        """Round a tensor that has a range to 256 codes."""
        return tf.quantization.fake_quant_with_min_max_vars(value, *self._bounds(node.name)) if node.name in self._first else value

    def values(self) -> Ranges:
        """The ranges as they are now."""
        return {name: (float(low), float(high)) for name, (low, high) in ((name, self._bounds(name)) for name in self._first)}

    def _bounds(self, name: str) -> tuple[Any, Any]:
        low, high = self._first[name]
        if name not in self._ends:
            return low, high
        factors = tf.exp(_PACE * tf.convert_to_tensor(self._ends[name]))
        high = high * factors[1]
        return (below_dead(high) if name in self._dead else low * factors[0]), high


def below_dead(high: Any) -> Any:
    """The lower end of the range of what only hard-swish reads, which is 0 at and below -3.

    One step lower, so that moving the range cannot bring its end above -3: nearly all values lie there, and would be shifted.
    """
    return DEAD_BELOW - (high - DEAD_BELOW) / 255.0


def largest_per_channel(kernel: Any) -> Any:
    """The largest magnitude of each output channel, which is its 127."""
    return tf.maximum(tf.reduce_max(tf.abs(kernel), axis=list(range(len(kernel.shape) - 1))), 1e-8)


def _per_channel(kernel: Any) -> Any:
    largest = largest_per_channel(tf.stop_gradient(kernel))
    return tf.quantization.fake_quant_with_min_max_vars_per_channel(kernel, -largest, largest, narrow_range=True)
