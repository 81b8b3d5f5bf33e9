"""Which layers int8 hurts: every tensor of the int8 arithmetic compared with the same tensor in floats, on the same images.

The measures are those of TensorFlow Lite's Quantization Debugger: the root mean square error over the tensor's step (a perfect rounding
of well-spread values has 1/√12 = 0.289; more means clipping), and beside it the ratio of signal to noise in decibels.
"""

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.quantize_mobile.fakequant import DEAD_BELOW, Ranges, fake_activations, fake_weights
from components.quantize_mobile.network import Network, Node, Spelling, apply_node, forward
from components.quantize_mobile.quantization import LayerError

_BATCH = 25
_PLAIN = Spelling()
_NOISELESS = 120.0
"""Decibels that stand for no error at all."""


def measure_layers(exact: Network, rounded: Network, ranges: Ranges, images: NDArray[np.uint8]) -> list[LayerError]:
    """One entry for each tensor with a range, in order of execution, over `images` uint8 [N, H, W, 3].

    `rounded` computes in int8 with `ranges`, `exact` in floats; both have the same operations. What a layer does itself is measured on
    exact inputs with the weights of `exact`, rounded (a corrected bias mends what others did); what has come together up to it, on the
    int8 network. Where only a hard-swish reads a tensor, values below -3 are alike.
    """
    traced = tf.function(lambda pixels: _squares(exact, rounded, ranges, pixels), autograph=False, reduce_retracing=True)
    sums: dict[str, NDArray[np.float64]] = {}
    for start in range(0, len(images), _BATCH):
        for name, values in traced(tf.constant(images[start : start + _BATCH].astype(np.float32))).items():
            sums[name] = sums.get(name, 0.0) + values.numpy().astype(np.float64)
    return [_entry(node, ranges[node.name], sums[node.name]) for node in exact.nodes if node.name in sums]


def worst_layers(layers: list[LayerError], count: int) -> list[LayerError]:
    """The `count` layers that add most noise themselves, the worst first."""
    return sorted(layers, key=lambda layer: layer.own_signal_to_noise_db)[:count]


def _squares(exact: Network, rounded: Network, ranges: Ranges, pixels: Any) -> dict[str, Any]:
    """Tensor → [sum of squares, of own errors, of errors so far, count]."""
    spelling = Spelling(fake_activations(ranges), fake_weights)
    wanted, found = _tensors(exact, pixels, _PLAIN), _tensors(rounded, pixels, spelling)
    sums: dict[str, Any] = {}
    for node in exact.nodes:
        if node.kind == "input" or node.name not in ranges:
            continue
        felt = _above_dead if exact.feeds_hard_swish(node.name) else tf.identity
        target = wanted[node.name]
        own = spelling.tap(node, apply_node(exact, node, [wanted[name] for name in node.inputs], spelling))
        size = tf.cast(tf.size(target), tf.float32)
        sums[node.name] = tf.stack(
            [_square(felt(target)), _square(felt(own) - felt(target)), _square(felt(found[node.name]) - felt(target)), size]
        )
    return sums


def _above_dead(value: Any) -> Any:
    """What a hard-swish makes a difference of: everything below -3 is alike to it, and cut on purpose."""
    return tf.maximum(value, DEAD_BELOW)


def _tensors(network: Network, pixels: Any, spelling: Spelling) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def tap(node: Node, value: Any) -> Any:
        seen[node.name] = spelling.tap(node, value)
        return seen[node.name]

    forward(network, pixels, Spelling(tap, spelling.weigh))
    return seen


def _square(value: Any) -> Any:
    return tf.reduce_sum(tf.square(value))


def _entry(node: Node, bounds: tuple[float, float], sums: NDArray[np.float64]) -> LayerError:
    signal, own, total, count = (float(value) for value in sums)
    step = (bounds[1] - bounds[0]) / 255.0
    return LayerError(
        tensor=node.name,
        kind=node.kind,
        range=bounds,
        own_error_in_steps=float(np.sqrt(own / count)) / step,
        own_signal_to_noise_db=_decibels(signal, own),
        signal_to_noise_db=_decibels(signal, total),
    )


def _decibels(signal: float, noise: float) -> float:
    if not noise:
        return _NOISELESS
    return min(_NOISELESS, 10.0 * float(np.log10(max(signal, 1e-12) / noise)))
