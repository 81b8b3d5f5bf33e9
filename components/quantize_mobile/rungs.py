"""What each rung of the ladder does."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from components.core.errors import DataError
from components.core.examples import read_examples
from components.core.record import StepRecord
from components.quantize_mobile.convert import to_dynamic_range, to_int8_by_calibration, to_int8_by_ranges
from components.quantize_mobile.fakequant import Ranges
from components.quantize_mobile.finetune import Lessons, fine_tune
from components.quantize_mobile.ladder import Candidates
from components.quantize_mobile.network import Network, read_network
from components.quantize_mobile.pixels import Pixels, load_pixels
from components.quantize_mobile.ranges import measure_ranges
from components.quantize_mobile.settings import QuantizeSettings, RungName
from components.training.inputs import Inputs
from components.training.settings import AugmentSettings
from components.training.training import MOBILE_MODEL, Training, class_weights


@dataclass
class Source:
    """What the rungs start from; the network and the calibration images are read once, when first asked for."""

    examples: Path
    model: Path
    training: Training
    settings: QuantizeSettings
    seed: int
    record: StepRecord

    @cached_property
    def keras_model(self) -> Any:
        """The trained model; `DataError` if model.keras can't be read."""
        return load_model(self.model / MOBILE_MODEL)

    @cached_property
    def float_network(self) -> Network:
        """The trained network as floats compute it fastest; `UsageError` if it can't be rebuilt."""
        return read_network(self.keras_model)

    @cached_property
    def network(self) -> Network:
        """The same network in the operations that the int8 models have."""
        return read_network(self.keras_model, self.settings.hard_swish)

    @cached_property
    def calibration(self) -> Pixels:
        """Training images, balanced over the classes, as many as the hungriest rung asks for."""
        count = max(*self.settings.calibration_sizes, self.settings.ranges.images)
        return load_pixels(self.examples, "train", self.training.preprocessing, count, self.seed)

    @cached_property
    def ranges(self) -> Ranges:
        """The activations' ranges, by the section `ranges` of the settings."""
        return measure_ranges(self.network, self.calibration.images[: self.settings.ranges.images], self.settings.ranges.clip)


def load_model(path: Path) -> Any:
    """Read a `model.keras`; `DataError` if the file is damaged."""
    import keras

    try:
        return keras.models.load_model(path, compile=False)
    except (ValueError, OSError, KeyError) as error:
        raise DataError(f"Keras can't load the model ({error})", where=str(path), fix="Run train_mobile again") from None


def rungs(source: Source) -> Mapping[RungName, Candidates]:
    """Every rung by name; each is a function, so that only those that are tried cost anything."""
    return {
        "ptq": lambda: _ptq(source),
        "clipped": lambda: _clipped(source),
        "qat": lambda: _qat(source),
        "dynamic_range": lambda: [("int8 weights, float arithmetic", to_dynamic_range(source.float_network))],
    }


def _ptq(source: Source) -> list[tuple[str, bytes]]:
    available = len(source.calibration)
    sizes = sorted({min(size, available) for size in source.settings.calibration_sizes})
    images = source.calibration.images
    return [(f"calibrated on {size} images", to_int8_by_calibration(source.network, images[:size])) for size in sizes]


def _clipped(source: Source) -> list[tuple[str, bytes]]:
    return [(f"ranges clipped ({_ranges_line(source)})", to_int8_by_ranges(source.network, source.ranges))]


def _qat(source: Source) -> list[tuple[str, bytes]]:
    chosen = source.settings.qat
    network = fine_tune(source.float_network, source.network, source.ranges, _lessons(source), chosen, source.record.say)
    method = f"{chosen.epochs} epochs of quantization-aware training, ranges clipped ({_ranges_line(source)})"
    return [(method, to_int8_by_ranges(network, source.ranges))]


def _ranges_line(source: Source) -> str:
    return f"{source.settings.ranges.clip} on {min(source.settings.ranges.images, len(source.calibration))} images"


def _lessons(source: Source) -> Lessons:
    """The training's own split, augmentation, class weights and label smoothing."""
    used, batch = source.training.settings, source.settings.qat.batch_size
    inputs = Inputs(source.examples, "train", source.training.preprocessing, cache_megabytes=int(used.get("cache_megabytes", 2048)))
    augment = AugmentSettings.model_validate(used.get("augment", {}))
    per_class = read_examples(source.examples).splits["train"].per_class
    weights = class_weights(used.get("class_weights", "auto"), per_class)
    return Lessons(
        epoch=lambda number: inputs.epoch(batch, number, augment, source.seed, weights),
        steps=inputs.steps(batch),
        label_smoothing=float(used.get("label_smoothing", 0.0)),
    )
