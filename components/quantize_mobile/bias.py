"""Bias correction: the mean error that rounding leaves in a layer's output is taken out of its bias, layer after layer.

Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction", section 4.2, in the empirical form of its
appendix D: the errors are measured on images. A correction changes what later layers see, and the squeeze-excite gates multiply what is
wrong: so each layer is measured with all earlier corrections in place. Correcting all layers by one measurement ruins the network.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.quantize_mobile.fakequant import Ranges, fake_activations, fake_weights
from components.quantize_mobile.network import WEIGHTED, Network, Spelling, apply_node

_PLAIN = Spelling()


def correct_biases(exact: Network, ranges: Ranges, images: NDArray[np.uint8]) -> Network:
    """`exact` with its biases corrected for int8 with `ranges`: each layer's mean over `images` uint8 [N, H, W, 3] is that in floats.

    All images are in memory at once, every tensor until its last reader has had it.
    """
    network = exact
    rounded = Spelling(fake_activations(ranges), fake_weights)
    pixels = tf.constant(images.astype(np.float32))
    wanted, found = dict[str, Any](), dict[str, Any]()
    for node in network.nodes:
        if node.kind == "input":
            wanted[node.name], found[node.name] = pixels, pixels
            continue
        if node.kind in WEIGHTED:
            linear = replace(node, activation="")
            target = apply_node(exact, linear, [wanted[name] for name in node.inputs], _PLAIN)
            actual = apply_node(network, linear, [found[name] for name in node.inputs], rounded)
            error = tf.reduce_mean(actual - target, axis=list(range(len(target.shape) - 1)))
            weights = network.weights[node.name]
            network = network.with_weights({node.name: replace(weights, bias=weights.bias - error.numpy())})
        wanted[node.name] = apply_node(exact, node, [wanted[name] for name in node.inputs], _PLAIN)
        found[node.name] = rounded.tap(node, apply_node(network, node, [found[name] for name in node.inputs], rounded))
        _forget(network, node.name, wanted, found)
    return network


def _forget(network: Network, done: str, *tensors: dict[str, Any]) -> None:
    """Drop what no later operation reads."""
    names = [node.name for node in network.nodes]
    later = {source for node in network.nodes[names.index(done) + 1 :] for source in node.inputs}
    for held in tensors:
        for name in [name for name in held if name not in later]:
            del held[name]
