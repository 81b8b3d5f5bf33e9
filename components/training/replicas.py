"""Epochs on several devices or workers that mean what they mean on one: each step sees the same global batch, each replica its slice of it.

`Model.fit` of Keras 3 fails under MultiWorkerMirroredStrategy (its symbolic build can't reduce a nested batch), and under
MirroredStrategy it clips each replica's own gradient. Here gradients are summed over all replicas first, as one device would have them;
losses and hits are summed, so that an image counts once, wherever it was.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf

from components.training.inputs import Inputs

_SUM = tf.distribute.ReduceOp.SUM


class SummedAdam(keras.optimizers.Adam):
    """Adam whose gradients are summed over all replicas before they are clipped. Overrides what Keras keeps to itself: a test compares."""

    def _clip_gradients(self, grads: Iterable[Any]) -> Any:
        summed = tf.distribute.get_replica_context().all_reduce(_SUM, list(grads))
        return super()._clip_gradients(summed)

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return grads_and_vars


class Replicas:
    """A compiled network on the replicas of the strategy that it was built under."""

    def __init__(self, network: Any, *, label_smoothing: float) -> None:
        """The network's optimizer is a `SummedAdam`."""
        self.strategy: Any = network.distribute_strategy
        self._network, self._smoothing = network, label_smoothing
        self._train = tf.function(self._train_step)
        self._hold = tf.function(self._held_step)

    def epoch(self, pixels: Any, batch: int, validation: Inputs, held_batch: int) -> dict[str, float]:
        """Train on the batches of `pixels`, `batch` images each over all replicas; averages named as those of `Model.fit`."""
        loss, hits, count = self._sums(self._train, pixels, tf.constant(float(batch)))
        held, held_hits, held_count = self._sums(self._hold, validation.plain(held_batch))
        return {
            "loss": loss / count,
            "accuracy": hits / count,
            "val_plain_loss": held / held_count,
            "val_accuracy": held_hits / held_count,
        }

    def agree(self, facts: Mapping[str, float]) -> bool:
        """Whether all replicas have the same numbers: a worker that resumed from another checkpoint would train another network."""
        values = tf.constant(list(facts.values()), tf.float64)
        each = self.strategy.run(tf.function(lambda: tf.stack([values, values**2])))
        sums, squares = self.strategy.reduce(_SUM, each, axis=None)
        # The sum's square is the count times the sum of squares only if all are the same (Cauchy, Schwarz).
        squares *= self.strategy.num_replicas_in_sync
        return bool(tf.reduce_all(tf.abs(squares - sums**2) <= 1e-9 * tf.maximum(squares, 1.0)))

    def _sums(self, step: Any, batches: Any, *more: Any) -> list[float]:
        total = tf.zeros([3], tf.float64)
        for batch in self.strategy.experimental_distribute_dataset(_by_example(batches)):
            total += step(batch, *more)
        return [float(value) for value in total.numpy()]

    def _train_step(self, batch: Any, size: Any) -> Any:
        return self.strategy.reduce(_SUM, self.strategy.run(self._learn, args=(batch, size)), axis=None)

    def _held_step(self, batch: Any) -> Any:
        return self.strategy.reduce(_SUM, self.strategy.run(self._judge, args=(batch,)), axis=None)

    def _learn(self, batch: Any, size: Any) -> Any:
        """One step of one replica, with float64 [3]: the sum of its weighted losses, its hits, its images."""
        pixels, targets, weights = batch
        network, optimizer = self._network, self._network.optimizer
        with tf.GradientTape() as tape:
            probabilities = network(pixels, training=True)
            losses = weights * keras.losses.categorical_crossentropy(targets, probabilities, label_smoothing=self._smoothing)
            # The mean over the global batch, as `sum_over_batch_size` is on one device; penalties of weights are everybody's.
            penalties = tf.add_n([*network.losses, 0.0]) / self.strategy.num_replicas_in_sync
            loss = optimizer.scale_loss(tf.reduce_sum(losses) / size + penalties)
        optimizer.apply(tape.gradient(loss, network.trainable_weights), network.trainable_weights)
        return _three(losses, targets, probabilities)

    def _judge(self, batch: Any) -> Any:
        pixels, targets = batch
        probabilities = self._network(pixels, training=False)
        return _three(keras.losses.categorical_crossentropy(targets, probabilities), targets, probabilities)


def synchronise_batch_norm(network: Any) -> None:
    """Let batch normalisation take its averages over the global batch: over a replica's slice it would be another network."""
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def _by_example(batches: Any) -> Any:
    """Let replicas share the examples of each batch, not the files: there may be fewer files than replicas."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.with_options(options)


def _three(losses: Any, targets: Any, probabilities: Any) -> Any:
    hits = tf.equal(tf.argmax(probabilities, 1), tf.argmax(targets, 1))
    sums = [tf.reduce_sum(tf.cast(each, tf.float64)) for each in (losses, hits, tf.ones_like(losses))]
    return tf.stack(sums)
