"""The range of each activation that its 256 int8 codes should cover, measured on images."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.quantize_mobile.fakequant import DEAD_BELOW, UNQUANTIZED, Ranges, below_dead
from components.quantize_mobile.network import WEIGHTED, Network, Node, Spelling, Weights, forward

Clip = Literal["none", "mse", "percentile"]
_BINS = 2048
_BATCH = 25
_SMALLEST = 0.01
"""A tensor that is always 0 on the images gets this much: runtimes refuse scales that are next to nothing."""
_SHRINK = np.linspace(0.08, 1.0, 24)
"""Fractions of the seen range that are tried as clipping points."""
_CODES = 255


def measure_ranges(network: Network, images: NDArray[np.uint8], clip: Clip, share: float = 0.9999) -> dict[str, tuple[float, float]]:
    """A range for every tensor that needs one, on `images` uint8 [N, H, W, 3].

    What hard-swish alone reads is cut at -3, below which it is 0. `clip="none"`: all else that was seen. `clip="mse"`: the range of the
    least squared error over the values seen, clipping and rounding together, after the hard-swish where one follows (Banner et al.
    2019, "Post training 4-bit quantization of convolutional networks", section 3; searched on histograms, not modelled).
    `clip="percentile"`: at each end only the share 1 - `share` of the values lies outside (Wu et al. 2020, "Integer quantization for deep
    learning inference", section 3.3; to the width of a histogram's bin).
    """
    dead = {node.name for node in network.nodes if network.feeds_hard_swish(node.name)}
    ranges: dict[str, tuple[float, float]] = {}
    for name, (low, high) in _extremes(network, images).items():
        top = max(0.0, high, low + _SMALLEST)
        ranges[name] = (max(low, below_dead(top)) if name in dead else min(0.0, low), top)
    if clip != "none":
        histograms = _histograms(network, images, ranges)

        def clipped(name: str, bounds: tuple[float, float]) -> tuple[float, float]:
            if clip == "percentile":
                return _percentiles(histograms[name], bounds, name in dead, share)
            return _least_error(histograms[name], bounds, name in dead)

        ranges = {name: clipped(name, bounds) for name, bounds in ranges.items()}
    return {**ranges, **_known(network)}


def wake_silent(network: Network, images: NDArray[np.uint8]) -> Network:
    """The network with one channel of each tensor that is 0 on all `images` made a constant 0.01.

    A calibrating converter gives a silent tensor (a squeeze-excite layer that training switched off) a scale next to nothing, the biases
    of its readers then overflow, and runtimes refuse the model. The reader's weights make of 0.01 less than one of its own steps.
    """
    changed: dict[str, Weights] = {}
    extremes = _extremes(network, images)
    for node in network.nodes:
        if node.kind in WEIGHTED and node.activation and extremes[node.name][1] < _SMALLEST:
            weights = network.weights[node.name]
            gain, bias = np.array(weights.gain), np.array(weights.bias)
            gain[0], bias[0] = 0.0, _SMALLEST
            changed[node.name] = replace(weights, gain=gain, bias=bias)
    return network.with_weights(changed)


def channel_maxima(network: Network, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Tensor → the largest magnitude of each of its channels [C] over `images` uint8 [N, H, W, 3], in floats."""

    def largest(_: Node, value: Any) -> Any:
        return tf.reduce_max(tf.abs(value), axis=list(range(len(value.shape) - 1)))

    return {name: values.max(axis=0) for name, values in _collect(network, images, largest).items()}


def nudged(low: float, high: float) -> tuple[float, float, float]:
    """(low, high, step) of the 256 codes for a range after moving it so that 0 has a code, as TensorFlow's fake quantization does."""
    step = (high - low) / _CODES
    zero = min(max(round(-low / step), 0), _CODES)
    return -zero * step, (_CODES - zero) * step, step


def _known(network: Network) -> dict[str, tuple[float, float]]:
    """Pixels are 0 … 255 whatever was seen, and so is what the rescaling makes of them."""
    known = {node.name: (0.0, 255.0) for node in network.nodes if node.kind == "input"}
    affine = {
        node.name: without_ties(node.offset, 255.0 * node.scale + node.offset)
        for node in network.nodes
        if node.kind == "affine" and node.inputs[0] in known
    }
    return known | affine


def without_ties(low: float, high: float) -> tuple[float, float]:
    """The range widened upwards until 0 is a whole number of steps from `low`.

    Pixels rescaled to [-1, 1] lie half-way between two codes, all of them: every runtime would round all one way, and not the same
    one, which makes the picture half a level too bright or too dark.
    """
    zero = int(-low * _CODES / (high - low))
    return (low, low + _CODES * -low / zero) if zero > 0 else (low, high)


def _extremes(network: Network, images: NDArray[np.uint8]) -> dict[str, tuple[float, float]]:
    def extremes(_: Node, value: Any) -> Any:
        return tf.stack([tf.reduce_min(value), tf.reduce_max(value)])

    found = _collect(network, images, extremes)
    return {name: (float(pairs[:, 0].min()), float(pairs[:, 1].max())) for name, pairs in found.items()}


def _histograms(network: Network, images: NDArray[np.uint8], ranges: Ranges) -> dict[str, NDArray[np.int64]]:
    def histogram(node: Node, value: Any) -> Any:
        return tf.histogram_fixed_width(value, tf.constant(ranges[node.name], value.dtype), _BINS)

    return {name: counts.sum(axis=0, dtype=np.int64) for name, counts in _collect(network, images, histogram).items()}


def _collect(network: Network, images: NDArray[np.uint8], measure: Any) -> dict[str, NDArray[Any]]:
    """Per quantized tensor, `measure(node, value)` of each batch, stacked [batches, …]: activations themselves are not kept."""

    def run(pixels: Any) -> dict[str, Any]:
        measured: dict[str, Any] = {}

        def tap(node: Node, value: Any) -> Any:
            if node.kind not in UNQUANTIZED:
                measured[node.name] = measure(node, value)
            return value

        forward(network, pixels, Spelling(tap))
        return measured

    traced = tf.function(run, autograph=False, input_signature=[tf.TensorSpec([None, network.height, network.width, 3], tf.float32)])
    parts: dict[str, list[Any]] = {}
    for start in range(0, len(images), _BATCH):
        for name, value in traced(tf.constant(images[start : start + _BATCH].astype(np.float32))).items():
            parts.setdefault(name, []).append(value.numpy())
    return {name: np.stack(values) for name, values in parts.items()}


def _percentiles(histogram: NDArray[np.int64], bounds: tuple[float, float], swished: bool, share: float) -> tuple[float, float]:
    """The edges of the bins in which the lowest and the highest of the kept values lie; 0 is always kept."""
    low, high = bounds
    edges = np.linspace(low, high, _BINS + 1)
    below = np.cumsum(histogram) / histogram.sum()
    top = max(0.0, float(edges[1 + np.searchsorted(below, share)])) or high
    if swished:
        return (below_dead(top) if low < DEAD_BELOW else low), top
    return min(0.0, float(edges[np.searchsorted(below, 1.0 - share, side="right")])), top


def _least_error(histogram: NDArray[np.int64], bounds: tuple[float, float], swished: bool) -> tuple[float, float]:
    """The pair of clipping points with the least squared error for a histogram over `bounds`."""
    low, high = bounds
    edges = np.linspace(low, high, _BINS + 1)
    values = (edges[:-1] + edges[1:]) / 2
    # ReLU's many zeros must count as what they are.
    values[(edges[:-1] <= 0) & (edges[1:] > 0)] = 0.0
    used = histogram > 0
    values, weights = values[used], histogram[used] / histogram.sum()
    lows = [low] if swished or low == 0 else list(low * _SHRINK)
    tried = [(a, b) for a in lows for b in (high * _SHRINK if high > 0 else [high])]
    return min(
        ((below_dead(b) if swished and low < DEAD_BELOW else a, b) for a, b in tried), key=lambda r: _error(values, weights, r, swished)
    )


def _error(values: NDArray[np.float64], weights: NDArray[np.float64], bounds: tuple[float, float], swished: bool) -> float:
    low, high, step = nudged(*bounds)
    coded = np.round(np.clip(values, low, high) / step) * step
    change = _hard_swish(coded) - _hard_swish(values) if swished else coded - values
    return float(np.dot(weights, change * change))


def _hard_swish(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x * np.clip(x + 3.0, 0.0, 6.0) / 6.0
