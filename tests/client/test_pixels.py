"""Decoding and resizing without TensorFlow is the preprocessing contract, as the trainings and the cloud's graph have it."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.core.errors import DataError
from components.core.preprocessing import Preprocessing
from components.training.transform import decode_and_resize as by_tensorflow
from serving.client.pixels import decode, decode_and_resize


def encoded(pixels: Any, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def picture(height: int, width: int, seed: int) -> Any:
    """Noise over slow waves: every frequency is in it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = 90 * np.sin(x / 17)[..., None] + 70 * np.cos(y / 29)[..., None]
    return np.clip(128 + waves + rng.normal(0, 40, (height, width, 3)), 0, 255).astype(np.uint8)


SIZES = [(375, 500), (224, 224), (97, 41), (32, 900), (48, 48), (1, 1)]
CONTRACT = Preprocessing(height=224, width=96)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_resizing_equals_the_contracts_up_to_a_level_where_sums_lie_at_a_half(height: int, width: int) -> None:
    image = encoded(picture(height, width, seed=height), "PNG")
    ours = decode_and_resize(image, CONTRACT).astype(int)
    difference = np.abs(ours - by_tensorflow(image, CONTRACT).numpy().astype(int))
    assert ours.shape == (224, 96, 3)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.02


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_jpeg_decoders_differ_by_a_few_levels(height: int, width: int) -> None:
    image = encoded(picture(height, width, seed=height), "JPEG")
    difference = np.abs(decode_and_resize(image, CONTRACT).astype(int) - by_tensorflow(image, CONTRACT).numpy().astype(int))
    assert difference.max() <= 8
    assert difference.mean() < 1.0


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_other_colour_modes_become_three_channels(mode: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture(40, 40, 1)).convert(mode).save(buffer, "PNG")
    assert decode(buffer.getvalue()).shape == (40, 40, 3)


@pytest.mark.parametrize("data", [b"", b"GIF89a", encoded(picture(40, 40, 1), "JPEG")[:300], encoded(picture(40, 40, 1), "GIF")])
def test_what_is_no_image_is_named(data: bytes) -> None:
    with pytest.raises(DataError, match="not a readable"):
        decode(data)
