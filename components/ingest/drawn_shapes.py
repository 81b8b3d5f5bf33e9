"""Shapes and colours of drawn flowers: outlines in flower units, placed on a canvas by a pose.

Flower units: the head's centre is the origin, its radius is 1, y points down as on the canvas.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

Array = NDArray[np.float64]
Colour = tuple[float, ...]
_STEPS = np.array([0.0, 0.15, 0.33, 0.52, 0.7, 0.85, 0.95, 1.0])
_CIRCLE = np.stack([np.cos(a := np.linspace(0, 2 * np.pi, 20, endpoint=False)), np.sin(a)], axis=1)


@dataclass(frozen=True)
class Pose:
    """Where a flower head is on the canvas and how it is seen.

    `x`, `y`, `radius` are in canvas pixels, `turn` in radians; `tilt` is 0 seen from the front and towards 1 seen from the
    side; `light` is the angle that the light comes from, in radians.
    """

    x: float
    y: float
    radius: float
    turn: float = 0.0
    tilt: float = 0.0
    light: float = -1.0

    @cached_property
    def matrix(self) -> Array:
        """Flower units as a row [2] @ matrix [2, 2] → canvas pixels around the centre."""
        cos, sin, squash = np.cos(self.turn), np.sin(self.turn), 1 - self.tilt
        return self.radius * np.array([[cos, sin], [-sin * squash, cos * squash]])

    def place(self, points: Array) -> Array:
        """Flower units [..., 2] → canvas pixels [..., 2]."""
        return points @ self.matrix + (self.x, self.y)


@dataclass(frozen=True)
class Brush:
    """Draws flower units in a pose; colours are RGB or RGBA floats in 0–255, clipped."""

    draw: ImageDraw.ImageDraw
    pose: Pose

    def fill(self, points: Array, colour: Colour) -> None:
        """A filled polygon [n, 2]."""
        self.draw.polygon(self.pose.place(points).ravel().tolist(), fill=clip(colour))

    def stroke(self, points: Array, colour: Colour, width: float) -> None:
        """An open line [n, 2] whose width is in flower units."""
        self.strokes(points[None], [colour], width)

    def strokes(self, lines: Array, colours: Sequence[Colour], width: float) -> None:
        """Open lines [m, n, 2], each in its colour, or all in the only one; `width` is in flower units."""
        pixels = max(1, round(width * self.pose.radius))
        joint = "curve" if pixels > 3 and lines.shape[1] > 2 else None
        flat = self.pose.place(lines).reshape(len(lines), -1).tolist()
        for number, line in enumerate(flat):
            self.draw.line(line, fill=clip(colours[number % len(colours)]), width=pixels, joint=joint)

    def dots(self, centres: Array, radius: float, colour: Colour) -> None:
        """Small discs around `centres` [n, 2]; at least one pixel wide."""
        size = max(0.6, radius * self.pose.radius)
        for x, y in self.pose.place(centres).tolist():
            self.draw.ellipse((x - size, y - size, x + size, y + size), fill=clip(colour))

    def disc(self, radius: float, colour: Colour, at: tuple[float, float] = (0.0, 0.0)) -> None:
        """A filled circle in flower units (an ellipse when tilted)."""
        self.fill(_CIRCLE * radius + np.array(at), colour)


def clip(colour: Colour) -> tuple[int, ...]:
    """Floats → the integers 0–255 that Pillow takes."""
    return tuple([0 if value < 0 else 255 if value > 255 else int(value) for value in colour])


def shade(colour: Colour, factor: float) -> Colour:
    """Darker (factor < 1) or lighter; alpha, if any, stays."""
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor, *colour[3:])


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`share` of the second colour in the first."""
    return tuple(a + (b - a) * share for a, b in zip(first, second, strict=True))


def blade(start: float, end: float, width: float, tip: float, belly: float = 0.5) -> Array:
    """A petal's outline [16, 2] along +x from `start` to `end`, `width` its half width.

    `tip` is 0 for a pointed end and towards 1 for a blunt one; `belly` is where along the petal it is widest (0–1).
    """
    t = _STEPS
    profile = np.sin(np.pi * t ** (np.log(0.5) / np.log(belly)))
    blunt = np.clip(t / belly, 0, 1) ** 0.5 * np.clip((1 - t) / 0.12, 0, 1) ** 0.5
    half = width * ((1 - tip) * profile + tip * blunt)
    x = start + (end - start) * t
    return np.concatenate([np.column_stack([x, half]), np.column_stack([x, -half])[::-1]])


def spin(outline: Array, angles: Array, lengths: Array | float = 1.0) -> Array:
    """Copies [m, n, 2] of an outline [n, 2], each scaled by its length and turned by its angle."""
    cos, sin = np.cos(angles) * lengths, np.sin(angles) * lengths
    return outline @ np.array([[cos, sin], [-sin, cos]]).transpose(2, 0, 1)


def around(count: int, rng: np.random.Generator, jitter: float = 0.15, offset: float = 0.0) -> Array:
    """`count` angles around the circle in radians, each off by up to `jitter` of the step."""
    step = 2 * np.pi / count
    return offset + step * (np.arange(count) + rng.uniform(-jitter, jitter, count))
