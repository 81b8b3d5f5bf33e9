"""What each rung of the ladder does."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from components.core.errors import DataError
from components.core.examples import read_examples
from components.core.record import StepRecord
from components.quantize_mobile.bias import correct_biases
from components.quantize_mobile.convert import to_dynamic_range, to_int8_by_calibration, to_int8_by_ranges
from components.quantize_mobile.equalise import equalise
from components.quantize_mobile.fakequant import Ranges
from components.quantize_mobile.finetune import Lessons, fine_tune
from components.quantize_mobile.ladder import Arithmetic, Candidate, Candidates
from components.quantize_mobile.layers import measure_layers, worst_layers
from components.quantize_mobile.network import Network, read_network
from components.quantize_mobile.pixels import Pixels, load_pixels
from components.quantize_mobile.ranges import channel_maxima, measure_ranges, wake_silent
from components.quantize_mobile.settings import QuantizeSettings, RungName
from components.training.inputs import Inputs
from components.training.settings import AugmentSettings
from components.training.training import MOBILE_MODEL, Training, class_weights

_CORRECTING = 200
"""By the shapes of MobileNetV3-Large at 224 px, its widest layers then need 2.6 GB, in floats and in int8."""


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
        return self.ranges_of(self.network)

    def ranges_of(self, network: Network) -> Ranges:
        """The same for another network."""
        chosen = self.settings.ranges
        return measure_ranges(network, self.calibration.images[: chosen.images], chosen.clip, chosen.percentile / 100)

    @cached_property
    def corrected(self) -> Arithmetic:
        """int8 with these ranges, after bias correction."""
        return Arithmetic(self.network, correct_biases(self.network, self.ranges, self.correcting), self.ranges)

    @property
    def correcting(self) -> Any:
        """The images that biases are corrected on: not more than fit into memory layer by layer."""
        return self.calibration.images[: min(self.settings.ranges.images, _CORRECTING)]


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
        "clipped": lambda: [
            _by_ranges(f"ranges clipped ({_ranges_line(source)})", Arithmetic(source.network, source.network, source.ranges))
        ],
        "corrected": lambda: [_by_ranges(f"ranges clipped ({_ranges_line(source)}), biases corrected layer by layer", source.corrected)],
        "equalised": lambda: [_by_ranges("channels equalised, ranges clipped, biases corrected layer by layer", _equalised(source))],
        "qat": lambda: _qat(source),
        "selective_float": lambda: _selective_float(source),
        "dynamic_range": lambda: [Candidate("int8 weights, float arithmetic", to_dynamic_range(source.float_network))],
    }


def _by_ranges(method: str, arithmetic: Arithmetic) -> Candidate:
    return Candidate(method, to_int8_by_ranges(arithmetic.rounded, arithmetic.ranges), arithmetic)


def _ptq(source: Source) -> list[Candidate]:
    available = len(source.calibration)
    sizes = sorted({min(size, available) for size in source.settings.calibration_sizes})
    images = source.calibration.images
    networks = {size: wake_silent(source.network, images[:size]) for size in sizes}
    return [Candidate(f"calibrated on {size} images", to_int8_by_calibration(networks[size], images[:size])) for size in sizes]


def _equalised(source: Source) -> Arithmetic:
    images = source.calibration.images
    even = equalise(source.network, channel_maxima(source.network, images[:100]))
    ranges = source.ranges_of(even)
    return Arithmetic(even, correct_biases(even, ranges, source.correcting), ranges)


def _qat(source: Source) -> list[Candidate]:
    chosen, start = source.settings.qat, source.corrected
    network, ranges = fine_tune(source.float_network, start.rounded, start.ranges, lessons(source), chosen, source.record.say)
    method = f"{chosen.epochs} epochs of quantization-aware training, from the corrected network"
    return [_by_ranges(method, Arithmetic(network, network, ranges))]


def _selective_float(source: Source) -> list[Candidate]:
    arithmetic, count = source.corrected, source.settings.float_layers
    layers = measure_layers(arithmetic.exact, arithmetic.rounded, arithmetic.ranges, source.calibration.images[:50])
    worst = {layer.tensor for layer in worst_layers(layers, count)}
    ranges = {name: bounds for name, bounds in arithmetic.ranges.items() if name not in worst}
    method = f"as corrected, but {', '.join(sorted(worst))} in floats"
    return [Candidate(method, to_int8_by_ranges(arithmetic.rounded, ranges))]


def _ranges_line(source: Source) -> str:
    return f"{source.settings.ranges.clip} on {min(source.settings.ranges.images, len(source.calibration))} images"


def lessons(source: Source) -> Lessons:
    """What the rung `qat` trains on: the training's own split, augmentation, class weights and label smoothing."""
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
