"""Drift on real photographs: what must be found, and what must not."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from components.validate_data.compare import Comparison, compare
from components.validate_data.measure import measure
from components.validate_data.reference import Sample
from components.validate_data.settings import ValidateDataSettings
from tests.unit.data_examples import altered

SETTINGS = ValidateDataSettings.model_validate({})


def sample(name: str, images: Sequence[bytes]) -> Sample:
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(measure, images))
    digests = [hashlib.sha256(data).hexdigest() for data in images]
    return Sample(name, np.stack([m.statistics for m in found]), np.stack([m.descriptor for m in found]), digests, {"flower": len(images)})


def drift(base: Sample, images: Sequence[bytes]) -> Comparison:
    thresholds = (SETTINGS.drift_distance, SETTINGS.drift_labels, SETTINGS.drift_auc)
    return compare("drift", "drift", base, sample("new", images), np.arange(len(images)), thresholds, SETTINGS, seed=1).comparison


@pytest.fixture(scope="module")
def flowers(shared: Path) -> list[bytes]:
    """600 flowers in an order that has nothing to do with their class."""
    images = [path.read_bytes() for path in sorted((shared / "data" / "flowers" / "train").rglob("*.jpg"))]
    return sorted(images, key=lambda data: hashlib.sha256(data).hexdigest())[:600]


@pytest.fixture(scope="module")
def reference(flowers: list[bytes]) -> Sample:
    return sample("reference", flowers[:350])


def test_other_flowers_have_not_drifted(reference: Sample, flowers: list[bytes]) -> None:
    found = drift(reference, flowers[350:])
    assert [m.name for m in found.flagged()] == []
    assert max(m.distance for m in found.measures if m.name == "embedding") < 0.58


def test_half_old_half_new_flowers_have_not_drifted(reference: Sample, flowers: list[bytes]) -> None:
    assert drift(reference, flowers[225:475]).flagged() == []


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda image: ImageEnhance.Brightness(image).enhance(1.4), {"brightness", "embedding"}),
        (lambda image: ImageEnhance.Brightness(image).enhance(0.7), {"brightness", "embedding"}),
        (lambda image: image.filter(ImageFilter.GaussianBlur(1)), {"sharpness", "embedding"}),
        (lambda image: ImageEnhance.Color(image).enhance(0.4), {"colourfulness", "embedding"}),
        (lambda image: image.rotate(90, expand=True), {"aspect", "embedding"}),
        (lambda image: image.resize((image.width * 2, image.height * 2)), {"width", "height"}),
    ],
    ids=["bright", "dark", "blurred", "pale", "turned", "enlarged"],
)
def test_changed_flowers_have_drifted(
    reference: Sample, flowers: list[bytes], change: Callable[[Image.Image], Image.Image], names: set[str]
) -> None:
    found = drift(reference, [altered(data, change) for data in flowers[350:500]])
    assert names <= {m.name for m in found.flagged()}


def test_clothes_are_no_flowers(reference: Sample, shared: Path) -> None:
    clothes = [path.read_bytes() for path in sorted((shared / "data" / "drift" / "clothing").rglob("*.jpg"))]
    found = drift(reference, clothes)
    assert {"brightness", "colourfulness", "embedding"} <= {m.name for m in found.flagged()}
    assert max(m.distance for m in found.measures if m.name == "embedding") > 0.95
