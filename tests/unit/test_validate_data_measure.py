"""What is measured of one image changes with what a person sees change, and with nothing else."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from components.validate_data.measure import DIMENSIONS, STATISTICS, measure
from tests.unit.data_examples import altered, picture


def value(data: bytes, name: str) -> float:
    return float(measure(data).statistics[STATISTICS.index(name)])


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_size_and_aspect_are_the_originals() -> None:
    wide = encoded(Image.new("RGB", (900, 300), "red"), "JPEG")
    assert [value(wide, name) for name in ("width", "height", "aspect")] == [900, 300, 3]


def test_brightness_contrast_and_colour_of_known_pixels() -> None:
    grey = encoded(Image.new("RGB", (40, 30), (100, 100, 100)))
    assert value(grey, "brightness") == pytest.approx(100, abs=0.5)
    assert value(grey, "contrast") == value(grey, "sharpness") == value(grey, "colourfulness") == 0
    halves = Image.new("L", (40, 30), 0)
    halves.paste(200, (20, 0, 40, 30))
    assert value(encoded(halves), "contrast") == pytest.approx(100, abs=0.5)
    red = encoded(Image.new("RGB", (40, 30), (255, 0, 0)))
    assert value(red, "colourfulness") == pytest.approx(0.3 * np.hypot(255, 127.5), rel=1e-3)


def test_blur_lowers_sharpness_and_light_raises_brightness() -> None:
    sharp = picture(1, side=64)
    assert value(altered(sharp, lambda image: image.filter(ImageFilter.GaussianBlur(1))), "sharpness") < value(sharp, "sharpness") - 0.5
    assert value(altered(sharp, lambda image: ImageEnhance.Brightness(image).enhance(1.4)), "brightness") > value(sharp, "brightness") + 20


def test_the_format_hardly_matters() -> None:
    data = picture(2, side=64)
    png = encoded(Image.open(io.BytesIO(data)))
    assert np.allclose(measure(data).descriptor, measure(png).descriptor, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (2, 500), (3000, 7), (1200, 900)])
def test_any_size_gives_finite_numbers(size: tuple[int, int]) -> None:
    measured = measure(encoded(Image.new("RGB", size, (10, 200, 30))))
    assert measured.descriptor.shape == (DIMENSIONS,)
    assert np.isfinite(measured.descriptor).all()
    assert np.isfinite(measured.statistics).all()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_any_colour_mode_is_measured(mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert np.isfinite(measure(encoded(Image.new(mode, (50, 40)), kind)).statistics).all()


@pytest.mark.parametrize("data", [b"", b"no image", picture(3)[:200]])
def test_what_is_no_image_raises(data: bytes) -> None:
    with pytest.raises((OSError, ValueError)):
        measure(data)
