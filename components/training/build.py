"""Builds a training's artifact: network, phases, export. Everything here needs TensorFlow."""

import functools
import math
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras

from components.core.preprocessing import Preprocessing
from components.training import devices
from components.training.backbones import (
    PROBABILITIES,
    build_network,
    feature_network,
    lower_batch_norm_momentum,
    unfreeze,
)
from components.training.curves import TensorBoardLog, draw_curves
from components.training.export import export_saved_model
from components.training.feature_engines import Engine, Forward, choose_engine, litert_obstacle, make_forward
from components.training.features import all_kept, extract
from components.training.fit import Plan, evaluate, fit
from components.training.head import Features, train_head
from components.training.inputs import Inputs
from components.training.replicas import synchronise_batch_norm
from components.training.settings import MobileTrainSettings
from components.training.teacher import Teacher
from components.training.train import Job
from components.training.training import (
    CLOUD_MODEL,
    MOBILE_MODEL,
    Epoch,
    Training,
    class_weights,
    epochs_per_phase,
    write_training,
)

TENSORBOARD = "tensorboard"
_FINE_TUNE_WARMUP = 0.1
_HEAD_LINES = 10
"""The head's epochs take a hundredth of a second: a line for every tenth."""


def build_artifact(job: Job, folder: Path) -> None:
    """Train and fill `folder`: the model, training.json, tensorboard/; pictures and metrics go to the job's record.

    Raises `WeightsUnavailableError` before anything is written if ImageNet weights turn out not to be there.
    """
    build = _Build(job, folder)
    build.train()
    # Of several workers each has the same network in the end; one writes it.
    if devices.is_chief():
        build.write()


class _Build:
    """One training under way."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.job, self.folder, self.settings = job, folder, job.settings
        self.key = job.record.step
        self.precision = devices.choose_precision(self.settings.mixed_precision, devices.gpu_capabilities(), f"{self.key}.mixed_precision")
        if self.precision == "mixed_float16" and devices.worker_count() > 1:
            # Its loss scaling branches on each worker's own gradients, and collective operations in a branch would wait for ever.
            self.precision = "float32"
        devices.make_repeatable(job.seed)
        self.strategy = devices.make_strategy()
        self.contract = Preprocessing(height=job.size, width=job.size)
        with job.timed("network"):
            self.network = self._network(job.initial(), self.strategy, self.precision)
        self.engine: Engine = self._choose_engine()
        # Made once, by who asks first.
        self.forward = functools.cache(self._make_forward)
        self.train_split, self.validation = self._decode()
        self.teacher = self._load_teacher()
        self.history: list[Epoch] = []
        self.log = TensorBoardLog(folder / TENSORBOARD)
        self.weights = class_weights(self.settings.class_weights, job.examples.splits["train"].per_class)

    def train(self) -> None:
        """Run the phases that the settings and the weights at hand ask for."""
        self._announce()
        if not self.job.pretrained:
            return self._train_from_scratch()
        with self.job.timed("features"):
            features = self._features()
        with self.job.timed("head"):
            self._train_head(*features)
        if self.settings.fine_tune.epochs:
            self._fine_tune()
        return None

    def write(self) -> None:
        """Export the network in float32 and say how good it is."""
        loss, accuracy = self._to_float32()
        with self.job.timed("export"):
            self._export()
        training = self._training(loss, accuracy)
        write_training(self.folder, training)
        # Release and report are made from the run's records.
        self.job.record.data("training", training.model_dump(mode="json", by_alias=True))
        self._report(loss, accuracy)

    def _network(self, weights: str | None, strategy: Any, precision: devices.Precision) -> keras.Model:
        dropout = self.settings.head.dropout if self.job.pretrained else self.settings.from_scratch.dropout
        with strategy.scope(), devices.precision(precision):
            return build_network(
                self.settings.backbone,
                self.job.size,
                len(self.job.examples.labels),
                weights=weights,
                dropout=dropout,
                key=f"{self.key}.weights",
            )

    def _choose_engine(self) -> Engine:
        return choose_engine(
            self.settings.feature_engine,
            self.settings.backbone,
            obstacle=litert_obstacle(self.network, self.precision),
            gpu=bool(devices.gpu_capabilities()),
            key=f"{self.key}.feature_engine",
        )

    def _make_forward(self) -> Forward:
        most, key = self.settings.feature_batch, f"{self.key}.feature_engine"
        return make_forward(self.engine, feature_network(self.network), most=most, key=key)

    def _decode(self) -> tuple[Inputs, Inputs]:
        """Both splits. Making the network ready keeps one core busy for a second or more: that happens beside."""
        with ThreadPoolExecutor(1) as beside:
            ready = beside.submit(self._prepare)
            with self.job.timed("decode"):
                splits = self._split("train"), self._split("validation")
            ready.result()
        return splits

    def _prepare(self) -> None:
        if self.job.pretrained and not all_kept(self.job.features(self.precision, self.engine), self.settings):
            with self.job.timed("features"):
                self.forward()

    def _load_teacher(self) -> Teacher | None:
        if not isinstance(self.settings, MobileTrainSettings) or not self.settings.teacher.release:
            return None
        with self.job.timed("teacher"), tempfile.TemporaryDirectory(prefix="dual-teacher-") as folder:
            return Teacher(self.job.record.store, self.settings.teacher, Path(folder))

    def _features(self) -> tuple[Features, Features]:
        workspace, say = self.job.features(self.precision, self.engine), self.job.record.say
        features = extract(self.forward, self.train_split, self.validation, self.settings, self.job.seed, workspace, say)
        self.forward.cache_clear()
        return features

    def _split(self, split: Any) -> Inputs:
        return Inputs(self.job.root, split, self.contract, cache_megabytes=self.settings.cache_megabytes)

    def _announce(self) -> None:
        start = {"imagenet": "ImageNet weights", "file": self.job.weights.asked, "none": "random weights"}[self.job.weights.used]
        self.job.record.note(
            f"{self.settings.backbone} from {start} at {self.job.size} px on {self.train_split.count} images "
            f"({self.precision}, {self.strategy.num_replicas_in_sync} device(s)"
            + (f", features by {self.engine})" if self.job.pretrained else ")")
        )

    def _train_head(self, train: Any, validation: Any) -> None:
        head = train_head(
            train,
            validation,
            self.settings.head,
            weights=self.weights,
            label_smoothing=self.settings.label_smoothing,
            seed=self.job.seed,
            on_epoch=self._hear,
        )
        self.network.get_layer(PROBABILITIES).set_weights([head.kernel, head.bias])

    def _fine_tune(self) -> None:
        chosen = self.settings.fine_tune
        unfreeze(self.network, chosen.layers)
        with self.job.timed("fine_tune"):
            self._fit(self._plan("fine_tune", chosen, warmup=_FINE_TUNE_WARMUP, start_loss=self._lowest_loss()))

    def _train_from_scratch(self) -> None:
        chosen = self.settings.from_scratch
        lower_batch_norm_momentum(self.network, chosen.batch_norm_momentum)
        if self.strategy.num_replicas_in_sync > 1:
            synchronise_batch_norm(self.network)
        with self.job.timed("scratch"):
            self._fit(self._plan("scratch", chosen, warmup=chosen.warmup))

    def _lowest_loss(self) -> float:
        return min(epoch.val_loss for epoch in self.history)

    def _plan(self, phase: Any, chosen: Any, *, warmup: float, start_loss: float = math.inf) -> Plan:
        return Plan(
            phase=phase,
            epochs=chosen.epochs,
            batch=chosen.batch_size,
            learning_rate=chosen.learning_rate,
            warmup=warmup,
            patience=chosen.patience,
            label_smoothing=self.settings.label_smoothing,
            class_weights=self.weights,
            augment=self.settings.augment,
            seed=self.job.seed,
            start_loss=start_loss,
            teach=self.teacher.follow if self.teacher else None,
        )

    def _fit(self, plan: Plan) -> None:
        fit(self.network, self.train_split, self.validation, plan, self.job.checkpoints(), self._hear)

    def _hear(self, epoch: Epoch) -> None:
        self.history.append(epoch)
        self.log.write(epoch)
        self.job.on_epoch(epoch)
        if epoch.phase != "head" or epoch.epoch % _HEAD_LINES == 0:
            self.job.record.say(
                f"{epoch.phase} epoch {epoch.epoch + 1}: loss {epoch.loss:.3f} accuracy {epoch.accuracy:.3f}, "
                f"validation loss {epoch.val_loss:.3f} accuracy {epoch.val_accuracy:.3f}"
                + (f", {epoch.seconds:.1f} s" if epoch.seconds else "")
            )

    def _to_float32(self) -> tuple[float, float]:
        """What ships computes in float32 on one device, however it was trained; its loss and accuracy on validation."""
        if self.precision == "float32" and self.strategy.num_replicas_in_sync == 1:
            # Measured already, when these weights became the best.
            best = min(self.history, key=lambda epoch: epoch.val_loss)
            return best.val_loss, best.val_accuracy
        weights = self.network.get_weights()
        # Starts the numbering of layers anew: their names are part of the contract with the int8 step.
        keras.utils.clear_session()
        self.network = self._network(None, devices.one_device(), "float32")
        self.network.set_weights(weights)
        with self.job.timed("evaluation"):
            return evaluate(self.network, self.validation, self.settings.feature_batch)

    def _export(self) -> None:
        if self.job.kind == "cloud":
            export_saved_model(self.network, self.job.examples.labels, self.contract, self.folder / CLOUD_MODEL)
        else:
            self.network.save(self.folder / MOBILE_MODEL)

    def _training(self, loss: float, accuracy: float) -> Training:
        return Training(
            kind=self.job.kind,
            backbone=self.settings.backbone,
            weights=self.job.weights,
            preprocessing=self.contract,
            labels=self.job.examples.labels,
            seed=self.job.seed,
            examples_digest=self.job.examples.digest,
            parameters=self.network.count_params(),
            epochs=epochs_per_phase(self.history),
            history=self.history,
            validation={"accuracy": accuracy, "loss": loss},
            precision=self.precision,
            replicas=self.strategy.num_replicas_in_sync,
            seconds=self.job.seconds,
            settings=self.settings.model_dump(),
        )

    def _report(self, loss: float, accuracy: float) -> None:
        record = self.job.record
        record.metric("validation_accuracy", accuracy)
        record.metric("validation_loss", loss)
        record.metric("parameters", self.network.count_params())
        title = f"{self.settings.backbone}, {self.job.size} px: validation accuracy {accuracy:.3f}"
        record.picture("curves", draw_curves(self.history, title), f"Training of the {self.job.kind} model. {title}.")
        record.table("Seconds per part", ["part", "seconds"], [[part, spent] for part, spent in self.job.seconds.items()])
        record.say(f"validation accuracy {accuracy:.3f}, loss {loss:.3f}")
