"""Equalisation: channels of one tensor that differ by orders of magnitude are scaled alike, without changing the network's function.

Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction", section 4.1: where nothing but positively
homogeneous functions (the identity, ReLU, padding, averages, additions of tensors scaled alike, the squeeze-excite product) lie between
the convolutions that write a tensor and those that read it, a channel may be divided by any s > 0 in the writers and multiplied by s in
the readers. ReLU6 and hard-swish are not homogeneous: what they read or write stays as it is. Weights are quantized per output channel
here, so the writers' scales cost nothing; s balances the channel's range of activations against the weights that read it, as in Xiao et
al. 2023, "SmoothQuant", equation 4.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from components.quantize_mobile.network import WEIGHTED, Floats, Network, Node, shaped_gain

_FIXED = ("input", "affine", "hard_swish", "softmax")
_MOST = 16.0
"""Largest factor by which a channel is changed, either way: beyond it lie channels that carry nothing."""


@dataclass
class Group:
    """Tensors whose channels must be scaled alike."""

    tensors: list[str]
    writers: list[str] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)


def equalise(network: Network, maxima: Mapping[str, Floats], strength: float = 0.5) -> Network:
    """The same function with its channels balanced; `maxima`: tensor → largest magnitude per channel [C] over the calibration images.

    s = a^strength / w^(1 - strength), a the channel's largest activation, w the largest weight that reads it, both relative to the
    largest channel. A network without equalisable tensors comes back as it is.
    """
    for group in groups(network):
        network = rescale(network, group, _scales(network, group, maxima, strength))
    return network


def groups(network: Network) -> list[Group]:
    """The equalisable tensors of a network, those together that are joined by additions, products or averages."""
    parent = {node.name: node.name for node in network.nodes}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for node in network.nodes:
        for source in _transparent(network, node):
            parent[root(source)] = root(node.name)
    found: dict[str, Group] = {}
    for node in network.nodes:
        found.setdefault(root(node.name), Group([])).tensors.append(node.name)
    closed = [_connected(network, group) for group in found.values()]
    return [group for group in closed if group.writers and group.readers and _is_homogeneous(network, group)]


def rescale(network: Network, group: Group, scales: Floats) -> Network:
    """Divide the channels of a group's tensors by `scales` [C] in its writers and multiply them back in its readers."""
    changed = dict(network.weights)
    for name in group.writers:
        weights = changed[name]
        changed[name] = replace(weights, gain=weights.gain / scales, bias=weights.bias / scales)
    for name in group.readers:
        weights = changed[name]
        if _node(network, name).kind == "depthwise":
            changed[name] = replace(weights, gain=weights.gain * scales)
        else:
            changed[name] = replace(weights, kernel=weights.kernel * scales[:, None])
    return network.with_weights(changed)


def _transparent(network: Network, node: Node) -> tuple[str, ...]:
    """The inputs whose channels' scales pass through a node unchanged."""
    if node.kind in ("pad", "mean", "add"):
        return node.inputs
    if node.kind == "multiply":
        # Of the squeeze-excite product only what is gated passes; the gate, a ReLU6's output, keeps its scale.
        return tuple(name for name in node.inputs if _node(network, name).activation != "relu6")
    # After the global average there is one value per channel.
    return node.inputs if node.kind == "flatten" and _node(network, node.inputs[0]).kind == "mean" else ()


def _connected(network: Network, group: Group) -> Group:
    group.writers = [name for name in group.tensors if _node(network, name).kind in WEIGHTED]
    readers = [reader.name for name in group.tensors for reader in network.consumers(name) if reader.kind in WEIGHTED]
    group.readers = list(dict.fromkeys(readers))
    return group


def _is_homogeneous(network: Network, group: Group) -> bool:
    nodes = [_node(network, name) for name in group.tensors]
    readers = [(reader, node.name) for node in nodes for reader in network.consumers(node.name)]
    shut = any(reader.kind not in WEIGHTED and name not in _transparent(network, reader) for reader, name in readers)
    products = [node for node in nodes if node.kind == "multiply" and len(_transparent(network, node)) != 1]
    return not shut and not products and not any(node.kind in _FIXED or node.activation == "relu6" for node in nodes)


def _scales(network: Network, group: Group, maxima: Mapping[str, Floats], strength: float) -> Floats:
    active = np.max([maxima[name].reshape(-1) for name in group.tensors if name in maxima], axis=0)
    read = np.max([_reading(network, name) for name in group.readers], axis=0)
    free = all(_node(network, name).kind == "depthwise" for name in group.readers)
    # A depthwise reader has a weight scale per channel: the activations alone decide.
    scales = _relative(active) ** (1.0 if free else strength) / _relative(read) ** (0.0 if free else 1.0 - strength)
    used = (active > 0) & (read > 0)
    return np.where(used, np.clip(scales, 1 / _MOST, _MOST), 1.0).astype(np.float32)


def _relative(values: Floats) -> Floats:
    return np.maximum(values / max(float(values.max()), 1e-12), 1e-6)


def _reading(network: Network, name: str) -> NDArray[np.float32]:
    """Per input channel, the largest weight of a layer relative to its output channel's largest."""
    node, weights = _node(network, name), network.weights[name]
    kernel = np.abs(np.asarray(weights.kernel) * shaped_gain(node, np.asarray(weights.gain)))
    if node.kind == "depthwise":
        return kernel.max(axis=(0, 1, 3))
    steps = np.maximum(kernel.max(axis=tuple(range(kernel.ndim - 1))), 1e-12)
    return (kernel / steps).max(axis=(*range(kernel.ndim - 2), kernel.ndim - 1))


def _node(network: Network, name: str) -> Node:
    return next(node for node in network.nodes if node.name == name)
