"""Weights that compress well, trained as such: pruned ones are zeros, clustered ones share a few values.

The file is as large as before; what shrinks is a download that is compressed on its way (gzip, or the archive of an app store).
Depthwise kernels and biases stay as they are: they are few, and the network is most sensitive to them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

from components.quantize_mobile.fakequant import fake_weights, largest_per_channel
from components.quantize_mobile.network import Floats, Network, Node, shaped_gain

_ROUNDS = 20
_UNTIL = 0.7
"""Share of the training after which nothing more is pruned."""


def sparsity_at(done: float, final: float) -> float:
    """Share of zeros when `done` of the training lies behind: rises fast, then slowly.

    Zhu, Gupta 2017, "To prune, or not to prune: exploring the efficacy of pruning for model compression", equation 1.
    """
    return final * (1.0 - (1.0 - min(1.0, done / _UNTIL)) ** 3)


def magnitude_mask(kernel: Floats, share: float) -> Floats:
    """1 where a weight stays, 0 for the `share` of smallest magnitude, rounded down to whole weights."""
    count = int(kernel.size * share)
    mask = np.ones(kernel.size, np.float32)
    mask[np.argsort(np.abs(kernel), axis=None, kind="stable")[:count]] = 0.0
    return mask.reshape(kernel.shape)


def shared_values(values: Floats, count: int) -> Floats:
    """`count` ≥ 3 ascending values in [-1, 1] that stand for `values`, by k-means; -1, 0 and 1 are always among them, one fewer if even.

    Han et al. 2016, "Deep compression", section 3: k-means from evenly spread first values, which did best there. The ends stay, so that
    the scale of a channel does.
    """
    centres = np.unique(np.append(np.linspace(-1.0, 1.0, count - (1 - count % 2)), 0.0)).astype(np.float32)
    ordered = np.sort(values, axis=None)
    totals = np.concatenate([[0.0], np.cumsum(ordered, dtype=np.float64)])
    fixed = np.isin(centres, (-1.0, 0.0, 1.0))
    for _ in range(_ROUNDS):
        edges = np.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2)
        starts, ends = np.append(0, edges), np.append(edges, len(ordered))
        means = (totals[ends] - totals[starts]) / np.maximum(ends - starts, 1)
        centres = np.where(fixed | (ends == starts), centres, means).astype(np.float32)
    return centres


@dataclass
class Compression:
    """How kernels are imitated while they are trained to be sparse, clustered, or both."""

    sparsity: float
    clusters: int
    masks: dict[str, Any] = field(default_factory=dict)
    books: dict[str, Any] = field(default_factory=dict)

    def begin(self, network: Network) -> None:
        """Choose the shared values and make the masks, before the first step."""
        for name, kernel in _kernels(network).items():
            if self.sparsity:
                self.masks[name] = tf.Variable(tf.ones(kernel.shape), trainable=False)
            if self.clusters:
                self.books[name] = tf.constant(
                    shared_values((kernel / np.asarray(largest_per_channel(kernel))).astype(np.float32), self.clusters)
                )

    def update(self, network: Network, done: float) -> None:
        """Prune what is smallest now, `done` of the training lying behind."""
        for name, kernel in _kernels(network).items() if self.sparsity else ():
            self.masks[name].assign(magnitude_mask(kernel, sparsity_at(done, self.sparsity)))

    def weigh(self, node: Node, kernel: Any) -> Any:
        """A kernel as the int8 model will have it, with gradients that pass through."""
        if node.name in self.masks:
            kernel = kernel * self.masks[node.name]
        return self._snapped(node.name, kernel) if node.name in self.books else fake_weights(node, kernel)

    def finish(self, network: Network) -> Network:
        """The network with its kernels pruned and snapped for good."""
        changed = dict(network.weights)
        for node in network.nodes:
            if node.name in {*self.masks, *self.books}:
                weights = network.weights[node.name]
                kernel = self.weigh(node, tf.constant(np.asarray(weights.kernel) * shaped_gain(node, weights.gain)))
                changed[node.name] = replace(weights, kernel=np.asarray(kernel), gain=np.ones_like(weights.gain))
        return network.with_weights(changed)

    def _snapped(self, name: str, kernel: Any) -> Any:
        book = self.books[name]
        largest = largest_per_channel(tf.stop_gradient(kernel))
        nearest = tf.searchsorted((book[1:] + book[:-1]) / 2, tf.reshape(kernel / largest, [-1]))
        snapped = tf.reshape(tf.gather(book, nearest), tf.shape(kernel)) * largest
        return kernel + tf.stop_gradient(snapped - kernel)


def _kernels(network: Network) -> Mapping[str, Floats]:
    """Name → kernel with its gain, of the layers that are compressed."""
    return {
        node.name: np.asarray(network.weights[node.name].kernel) * shaped_gain(node, np.asarray(network.weights[node.name].gain))
        for node in network.nodes
        if node.kind in ("conv", "dense")
    }
