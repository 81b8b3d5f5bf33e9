"""What each rung of the ladder does."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from components.core.errors import DataError
from components.core.record import StepRecord
from components.quantize_mobile.convert import to_dynamic_range, to_int8_by_calibration, to_int8_by_ranges
from components.quantize_mobile.ladder import Candidates
from components.quantize_mobile.network import Network, read_network
from components.quantize_mobile.pixels import Pixels, load_pixels
from components.quantize_mobile.settings import QuantizeSettings, RungName
from components.training.training import MOBILE_MODEL, Training


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
    def network(self) -> Network:
        """The trained network; `DataError` if model.keras can't be read."""
        return load_network(self.model / MOBILE_MODEL)

    @cached_property
    def calibration(self) -> Pixels:
        """Training images, balanced over the classes, as many as the hungriest rung asks for."""
        count = max(*self.settings.calibration_sizes, self.settings.equalize.images)
        return load_pixels(self.examples, "train", self.training.preprocessing, count, self.seed)


def load_network(path: Path) -> Network:
    """Read a `model.keras`; `DataError` if the file is damaged, `UsageError` if the network can't be rebuilt."""
    import keras

    try:
        model = keras.models.load_model(path, compile=False)
    except (ValueError, OSError, KeyError) as error:
        raise DataError(f"Keras can't load the model ({error})", where=str(path), fix="Run train_mobile again") from None
    return read_network(model)


def rungs(source: Source) -> Mapping[RungName, Candidates]:
    """Every rung by name; each is a function, so that only those that are tried cost anything."""
    return {
        "ptq": lambda: _ptq(source),
        "equalized": lambda: _equalized(source),
        "qat": lambda: _qat(source),
        "dynamic_range": lambda: [("int8 weights, float arithmetic", to_dynamic_range(source.network))],
    }


def _ptq(source: Source) -> list[tuple[str, bytes]]:
    available = len(source.calibration)
    sizes = sorted({min(size, available) for size in source.settings.calibration_sizes})
    images = source.calibration.images
    return [(f"calibrated on {size} images", to_int8_by_calibration(source.network, images[:size])) for size in sizes]


def _equalized(source: Source) -> list[tuple[str, bytes]]:
    from components.quantize_mobile.equalize import prepare

    settings = source.settings.equalize
    network, ranges = prepare(source.network, source.calibration.images[: settings.images], settings)
    return [(f"equalized, ranges by {settings.clip} on {settings.images} images", to_int8_by_ranges(network, ranges))]


def _qat(source: Source) -> list[tuple[str, bytes]]:
    from components.quantize_mobile.finetune import fine_tune

    network, ranges = fine_tune(source)
    return [(f"{source.settings.qat.epochs} epochs of quantization-aware training", to_int8_by_ranges(network, ranges))]
