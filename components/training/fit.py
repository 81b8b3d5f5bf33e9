"""Training a network by epochs that can be killed: after each one everything is kept, and a rerun goes on as if nothing had been.

An epoch's pictures and their order depend on the seed and its number alone, the network's random numbers are part of its
variables: a resumed training ends with the same weights as one that was never interrupted (on a CPU, bit for bit).
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from components.core.errors import DualError
from components.training import devices
from components.training.backbones import inference
from components.training.inputs import Inputs
from components.training.replicas import Replicas, SummedAdam
from components.training.settings import AugmentSettings
from components.training.training import Epoch, Phase
from components.training.workspace import Array, Workspace


class WorkersDisagreeError(DualError):
    """The workers of one training do not stand at the same place; it passes when all of them start again."""


@dataclass(frozen=True)
class Plan:
    """How to train: one phase of settings, with what both phases share."""

    phase: Phase
    epochs: int
    batch: int
    learning_rate: float
    warmup: float
    patience: int
    label_smoothing: float
    class_weights: Sequence[float]
    augment: AugmentSettings
    seed: int
    start_loss: float = math.inf
    """Validation loss of the weights before the first epoch; infinite if they are random and not worth keeping."""
    teach: Callable[[Any], Any] | None = None
    """Mixes a teacher's answers into an epoch's targets."""


@dataclass
class _Progress:
    """Where a training stands."""

    done: int = 0
    best_loss: float = math.inf
    waited: int = 0
    history: list[Epoch] = field(default_factory=list)
    best: list[Array] = field(default_factory=list)
    """The weights with the lowest validation loss."""


def fit(
    network: keras.Model, train: Inputs, validation: Inputs, plan: Plan, workspace: Workspace, on_epoch: Callable[[Epoch], None]
) -> list[Epoch]:
    """Train `network` in place by `plan` and leave it with the weights of the lowest validation loss; returns the epochs.

    The weights before the first epoch count as well, by `plan.start_loss`. `on_epoch` hears each epoch, those of an interrupted
    run too. Raises `DualError` if the loss is no longer a number.
    """
    _compile(network, plan, train.steps(plan.batch))
    replicas = Replicas(network, label_smoothing=plan.label_smoothing) if _is_copied(network) else None
    begin = _Progress(best=_values(network.weights), best_loss=plan.start_loss)
    progress = _resumed(network, plan.phase, workspace) or begin
    _require_agreement(replicas, progress)
    for epoch in progress.history:
        on_epoch(epoch)
    for number in range(progress.done, plan.epochs):
        if progress.waited >= plan.patience:
            break
        epoch = _run_epoch(network, replicas, train, validation, plan, number)
        _account(progress, epoch, network)
        if devices.is_chief():
            _keep(network, plan.phase, progress, workspace)
        on_epoch(epoch)
    _assign(network.weights, progress.best)
    return progress.history


def evaluate(network: keras.Model, inputs: Inputs, batch: int) -> tuple[float, float]:
    """Cross-entropy in nats and accuracy of `network` on unchanged images."""
    losses, hits = 0.0, 0
    step = inference(network)
    for pixels, targets in inputs.plain(batch):
        probabilities, wanted = np.asarray(step(pixels)), np.asarray(targets)
        losses -= float(np.log(np.maximum((probabilities * wanted).sum(axis=1), 1e-7)).sum())
        hits += int((probabilities.argmax(axis=1) == wanted.argmax(axis=1)).sum())
    return losses / inputs.count, hits / inputs.count


def cosine_with_warmup(peak: float, steps: int, warmup: float) -> Any:
    """Learning rates: a linear rise to `peak` over the share `warmup` of `steps`, then a cosine to zero (SGDR, Loshchilov 2017)."""
    rise = int(steps * warmup)
    if not rise:
        return keras.optimizers.schedules.CosineDecay(peak, steps)
    return keras.optimizers.schedules.CosineDecay(peak / rise, max(1, steps - rise), warmup_target=peak, warmup_steps=rise)


def _compile(network: keras.Model, plan: Plan, steps: int) -> None:
    rates = cosine_with_warmup(plan.learning_rate, plan.epochs * steps, plan.warmup)
    adam = SummedAdam if _is_copied(network) else keras.optimizers.Adam
    with network.distribute_strategy.scope():
        network.compile(
            optimizer=adam(rates, global_clipnorm=1.0),
            loss=keras.losses.CategoricalCrossentropy(label_smoothing=plan.label_smoothing),
            metrics=[keras.metrics.CategoricalAccuracy(name="accuracy"), keras.metrics.CategoricalCrossentropy(name="plain_loss")],
        )
        # Made now, so that a checkpoint has somewhere to go.
        network.optimizer.build(network.trainable_variables)


def _is_copied(network: Any) -> bool:
    return network.distribute_strategy.num_replicas_in_sync > 1


def _require_agreement(replicas: Replicas | None, progress: _Progress) -> None:
    if replicas and not replicas.agree({"done": progress.done, "best_loss": min(progress.best_loss, 1e30)}):
        # One of them read the checkpoint while the first was replacing it.
        raise WorkersDisagreeError("the workers resumed from different checkpoints", fix="Start all of them again")


def _run_epoch(network: Any, replicas: Replicas | None, train: Inputs, validation: Inputs, plan: Plan, number: int) -> Epoch:
    began = time.monotonic()
    pixels = train.epoch(plan.batch, number, plan.augment, plan.seed, plan.class_weights)
    pixels = plan.teach(pixels) if plan.teach else pixels
    if replicas:
        values = replicas.epoch(pixels, min(plan.batch, train.count), validation, plan.batch)
    else:
        values = _fit_one(network, pixels, validation.plain(plan.batch), number)
    if not math.isfinite(values["loss"] + values["val_plain_loss"]):
        raise DualError("the loss is no longer a number", where=f"{plan.phase}, epoch {number + 1}", fix="Lower its learning_rate")
    return Epoch(
        phase=plan.phase,
        epoch=number,
        loss=values["loss"],
        accuracy=values["accuracy"],
        val_loss=values["val_plain_loss"],
        val_accuracy=values["val_accuracy"],
        seconds=round(time.monotonic() - began, 2),
    )


def _fit_one(network: Any, pixels: Any, held: Any, number: int) -> dict[str, float]:
    logs = network.fit(pixels, validation_data=held, initial_epoch=number, epochs=number + 1, shuffle=False, verbose=0).history
    return {name: float(series[-1]) for name, series in logs.items()}


def _account(progress: _Progress, epoch: Epoch, network: keras.Model) -> None:
    progress.done = epoch.epoch + 1
    progress.history.append(epoch)
    progress.waited += 1
    if epoch.val_loss < progress.best_loss:
        progress.best_loss, progress.waited, progress.best = epoch.val_loss, 0, _values(network.weights)


def _keep(network: keras.Model, phase: Phase, progress: _Progress, workspace: Workspace) -> None:
    facts = {
        "done": progress.done,
        "best_loss": progress.best_loss,
        "waited": progress.waited,
        "history": [epoch.model_dump() for epoch in progress.history],
    }
    workspace.save(phase, [*_values(_state(network)), *progress.best], facts)


def _resumed(network: keras.Model, phase: Phase, workspace: Workspace) -> _Progress | None:
    piece = workspace.load(phase)
    if piece is None:
        return None
    state = _state(network)
    _assign(state, piece.arrays[: len(state)])
    history = [Epoch.model_validate(epoch) for epoch in piece.facts["history"]]
    return _Progress(**{**piece.facts, "history": history, "best": piece.arrays[len(state) :]})


def _state(network: keras.Model) -> list[Any]:
    """Everything that the next epoch depends on: weights, the seeds of dropout, the optimizer's moments and step."""
    return [*network.variables, *network.optimizer.variables]


def _values(variables: list[Any]) -> list[Array]:
    return [np.array(variable) for variable in variables]


def _assign(variables: list[Any], values: Sequence[Array]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
