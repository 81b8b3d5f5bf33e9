"""What one image measures: seven statistics that a person can read, and a descriptor that a classifier can."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]

STATISTICS = ("width", "height", "aspect", "brightness", "contrast", "sharpness", "colourfulness")
"""The order of the columns of `Measured.statistics`."""
UNITS = {
    "width": "pixels",
    "height": "pixels",
    "aspect": "width / height",
    "brightness": "mean luma, 0–255",
    "contrast": "standard deviation of luma",
    "sharpness": "log10(1 + variance of the Laplacian)",
    "colourfulness": "Hasler–Süsstrunk",
}
_SIDE = 256
_GRID, _CELL = 3, 16
_ORIENTATIONS = 8
DIMENSIONS = _GRID * _GRID * (6 + _ORIENTATIONS) + 3
"""Length of a descriptor."""
DESCRIPTOR = "colour-hog/1"
"""Name of the descriptor: references made with another one can't be compared with."""


@dataclass(frozen=True)
class Measured:
    """One image: `statistics` float32 [7] in the order of STATISTICS, `descriptor` float32 [DIMENSIONS]."""

    statistics: Floats
    descriptor: Floats


def measure(data: bytes) -> Measured:
    """Decode JPEG or PNG bytes and measure them.

    All but width, height and aspect are taken with the longer side reduced to at most 256 pixels, which is what a classifier sees
    and makes sharpness comparable between cameras. Raises OSError or ValueError if the bytes are no image.
    """
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        image.draft("RGB", (_SIDE, _SIDE))
        small = image.convert("RGB")
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    luma = np.asarray(small.convert("L"), np.float32)
    sharpness = _laplacian_energy(luma)
    values = [width, height, width / height, luma.mean(), luma.std(), sharpness, _colourfulness(np.asarray(small, np.float32))]
    return Measured(np.array(values, np.float32), _describe(small, luma, sharpness))


def _laplacian_energy(luma: Floats) -> float:
    """log10(1 + variance of the 4-neighbour Laplacian): Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000."""
    if min(luma.shape) < 3:
        return 0.0
    centre = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * centre
    return float(np.log10(1 + laplacian.var()))


def _colourfulness(rgb: Floats) -> float:
    """M3 of Hasler and Süsstrunk, "Measuring colourfulness in natural images", SPIE 2003: 0 is grey, above 80 is extremely colourful."""
    red_green = rgb[..., 0] - rgb[..., 1]
    yellow_blue = (rgb[..., 0] + rgb[..., 1]) / 2 - rgb[..., 2]
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))


def _describe(image: Image.Image, luma: Floats, sharpness: float) -> Floats:
    """Where which colours and edge directions are, on a 3×3 grid, and the fine detail at three scales.

    Opponent-colour means and deviations per cell; histograms of oriented gradients (Dalal and Triggs, CVPR 2005) under the Hellinger
    map; Laplacian energy at full, half and quarter size.
    """
    side = _GRID * _CELL
    tiny = np.asarray(image.resize((side, side), Image.Resampling.BOX), np.float32) / 255
    red, green, blue = tiny[..., 0], tiny[..., 1], tiny[..., 2]
    light = tiny.mean(axis=-1)
    opponents = np.stack([light, red - green, (red + green) / 2 - blue])
    cells = opponents.reshape(3, _GRID, _CELL, _GRID, _CELL)
    colour = np.concatenate([cells.mean(axis=(2, 4)).ravel(), cells.std(axis=(2, 4)).ravel()])
    half = _halved(luma)
    detail = [sharpness, _laplacian_energy(half), _laplacian_energy(_halved(half))]
    return np.concatenate([colour, _edges(light), np.array(detail, np.float32)]).astype(np.float32)


def _edges(light: Floats) -> Floats:
    down, right = np.gradient(light)
    strength = np.hypot(down, right)
    angle = np.mod(np.arctan2(down, right), np.pi)
    orientation = np.minimum((angle * (_ORIENTATIONS / np.pi)).astype(np.intp), _ORIENTATIONS - 1)
    cell = np.arange(_GRID * _CELL) // _CELL
    index = (cell[:, None] * _GRID + cell[None, :]) * _ORIENTATIONS + orientation
    histogram = np.bincount(index.ravel(), strength.ravel(), _GRID * _GRID * _ORIENTATIONS).reshape(-1, _ORIENTATIONS)
    return np.sqrt(histogram / (histogram.sum(axis=1, keepdims=True) + 1e-3)).ravel().astype(np.float32)


def _halved(luma: Floats) -> Floats:
    height, width = luma.shape[0] // 2 * 2, luma.shape[1] // 2 * 2
    even = luma[:height, :width]
    return (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) * np.float32(0.25)
