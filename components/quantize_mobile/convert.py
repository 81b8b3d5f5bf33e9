"""A network as a .tflite: float, int8 by the converter's own calibration, int8 with given ranges, and dynamic-range.

All but the float one have the published contract at their edges: uint8 pixels [1, H, W, 3] in, uint8 probabilities [1, C] out.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.quantize_mobile.fakequant import Ranges, fake_activations
from components.quantize_mobile.network import Network, Spelling, forward

_PIXELS = (0.0, 255.0)
_PLAIN = Spelling(for_converter=True)


def to_float(network: Network) -> bytes:
    """The float32 reference: float32 [1, H, W, 3] in [0, 255] → float32 probabilities [1, C]."""
    return _converter(network, lambda pixels: forward(network, pixels, _PLAIN)).convert()


def to_int8_by_calibration(network: Network, images: Iterable[NDArray[np.uint8]]) -> bytes:
    """Full int8 by TensorFlow's post-training quantization: each tensor's range is what `images` (uint8 [H, W, 3]) make it.

    Weights are per channel and symmetric (Krishnamoorthi 2018, "Quantizing deep convolutional networks", section 3.1.2).
    """
    converter = _int8(_converter(network, lambda pixels: forward(network, pixels, _PLAIN)))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.representative_dataset = lambda: ([image] for image in _with_extremes(network, images))
    return converter.convert()


def to_int8_by_ranges(network: Network, ranges: Ranges) -> bytes:
    """Full int8 with the given ranges of activations; the converter quantizes the weights per channel.

    Each range becomes a fake-quantization operation, from which the converter takes the tensor's scale and zero point.
    """
    spelling = Spelling(fake_activations(ranges), for_converter=True)
    return _int8(_converter(network, lambda pixels: forward(network, pixels, spelling))).convert()


def to_dynamic_range(network: Network) -> bytes:
    """int8 weights, float arithmetic; the uint8 edges are casts. For when no int8 rung keeps its accuracy, and labelled as such."""

    def classify(pixels: Any) -> Any:
        probabilities = forward(network, tf.cast(pixels, tf.float32), _PLAIN)
        return tf.cast(tf.minimum(tf.round(probabilities * 256.0), 255.0), tf.uint8)

    converter = _converter(network, classify, tf.uint8)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter.convert()


def _converter(network: Network, function: Callable[[Any], Any], dtype: Any = tf.float32) -> Any:
    # The weights become constants of the graph: nothing is left to freeze.
    holder = tf.Module()
    signature = tf.TensorSpec([1, network.height, network.width, 3], dtype, name="pixels")
    holder.__dict__["classify"] = tf.function(function, input_signature=[signature], autograph=False)
    concrete = holder.__dict__["classify"].get_concrete_function()
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete], holder)


def _int8(converter: Any) -> Any:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.uint8
    return converter


def _with_extremes(network: Network, images: Iterable[NDArray[np.uint8]]) -> Iterable[NDArray[np.float32]]:
    # The input's scale must be exactly 1: the darkest and the brightest pixel are shown once, in one corner of the first image.
    for number, image in enumerate(images):
        pixels = image.astype(np.float32)[np.newaxis]
        if number == 0:
            pixels[0, 0, 0, :], pixels[0, 0, 1, :] = _PIXELS
        yield pixels
