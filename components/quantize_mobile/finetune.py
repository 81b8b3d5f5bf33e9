"""Short quantization-aware training: the network learns under imitated int8 arithmetic, from the labels and from its float self.

Method: Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only inference" (imitated
rounding, straight-through gradients), with the float model as the teacher (Hinton et al. 2015, "Distilling the knowledge in a neural
network"). Batch normalisation stays folded in as a constant gain, so that its statistics cannot move.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf

from components.quantize_mobile.compress import Compression
from components.quantize_mobile.fakequant import LearnedRanges, Ranges, fake_activations
from components.quantize_mobile.network import Network, Spelling, Weights, forward
from components.quantize_mobile.settings import QatSettings

_TINY = 1e-7


@dataclass(frozen=True)
class Lessons:
    """What to train on: `epoch(n)` gives the n-th epoch's batches of (pixels float32, one-hot labels, weights)."""

    epoch: Callable[[int], Any]
    steps: int
    label_smoothing: float


def fine_tune(
    teacher: Network, network: Network, ranges: Ranges | None, lessons: Lessons, settings: QatSettings, say: Callable[[str], None]
) -> tuple[Network, Ranges]:
    """Train the kernels and biases of `network` under int8 arithmetic with `ranges`; returns it with the new weights, and the ranges.

    `teacher` is the float network whose answers are followed, in whatever form is fastest. With `settings.learn_ranges` the ranges are
    trained too. Without `ranges` nothing is rounded: the control, a float network that was trained alike.
    Deterministic for the same lessons on the same machine.
    """
    student, variables = _as_variables(network)
    learned = LearnedRanges(network, ranges or {}) if settings.learn_ranges else None
    variables += learned.variables if learned else []
    schedule = keras.optimizers.schedules.CosineDecay(settings.learning_rate, settings.epochs * lessons.steps)
    optimizer = keras.optimizers.Adam(cast("Any", schedule), use_ema=settings.averaging > 0, ema_momentum=settings.averaging or 0.5)
    optimizer.build(variables)
    loss = Loss(settings.distillation, settings.temperature, lessons.label_smoothing)
    compression = Compression(settings.sparsity, settings.clusters)
    compression.begin(network)
    step = _training_step(teacher, student, variables, optimizer, loss, _spelling(ranges, learned, compression))
    for epoch in range(settings.epochs):
        began = time.monotonic()
        compression.update(_as_arrays(student), (epoch + 1) / settings.epochs)
        losses = [step(*batch) for batch in lessons.epoch(epoch)]
        say(f"{'qat' if ranges else 'control'} epoch {epoch + 1}: loss {float(np.mean(losses)):.3f}, {time.monotonic() - began:.1f} s")
    if settings.averaging:
        optimizer.finalize_variable_values(variables)
    return compression.finish(_as_arrays(student)), learned.values() if learned else ranges or {}


@dataclass(frozen=True)
class Loss:
    """(1 - share) · cross-entropy with the labels + share · T² · Kullback-Leibler divergence from the teacher, per image in nats.

    Both distributions of the divergence are softened by the temperature T, and T² keeps its gradients' size (Hinton et al. 2015,
    section 2). Softened probabilities are those of the logits divided by T.
    """

    share: float
    temperature: float
    smoothing: float

    def __call__(self, labels: Any, weights: Any, teacher: Any, student: Any) -> Any:
        """The mean over images of probabilities [N, C], weighted by `weights` [N]; labels are one-hot."""
        classes = tf.cast(tf.shape(labels)[1], tf.float32)
        targets = labels * (1.0 - self.smoothing) + self.smoothing / classes
        entropy = -tf.reduce_sum(targets * _log(student), axis=1)
        followed, soft = (tf.nn.log_softmax(_log(each) / self.temperature) for each in (teacher, student))
        divergence = self.temperature**2 * tf.reduce_sum(tf.exp(followed) * (followed - soft), axis=1)
        return tf.reduce_mean(weights * ((1.0 - self.share) * entropy + self.share * divergence))


def _log(probabilities: Any) -> Any:
    return tf.math.log(tf.maximum(probabilities, _TINY))


def _spelling(ranges: Ranges | None, learned: LearnedRanges | None, compression: Compression) -> Spelling:
    if learned:
        return Spelling(learned.tap, compression.weigh)
    return Spelling() if ranges is None else Spelling(fake_activations(ranges), compression.weigh)


def _training_step(
    teacher: Network, student: Network, variables: Sequence[Any], optimizer: Any, loss: Loss, spelling: Spelling
) -> Callable[..., Any]:
    trained = [variable.value for variable in variables]

    def step(pixels: Any, labels: Any, weights: Any) -> Any:
        followed = tf.stop_gradient(forward(teacher, pixels))
        with tf.GradientTape() as tape:
            value = loss(labels, weights, followed, forward(student, pixels, spelling))
        optimizer.apply(tape.gradient(value, trained), variables)
        return value

    return tf.function(step, autograph=False, reduce_retracing=True)


def _as_variables(network: Network) -> tuple[Network, list[Any]]:
    """The same network whose kernels and biases are variables, and these variables."""
    made = {
        name: Weights(keras.Variable(weights.kernel, name="kernel"), weights.gain, keras.Variable(weights.bias, name="bias"))
        for name, weights in network.weights.items()
    }
    return network.with_weights(made), [variable for weights in made.values() for variable in (weights.kernel, weights.bias)]


def _as_arrays(network: Network) -> Network:
    changed = {
        name: Weights(np.asarray(weights.kernel.numpy()), weights.gain, np.asarray(weights.bias.numpy()))
        for name, weights in network.weights.items()
    }
    return network.with_weights(changed)
