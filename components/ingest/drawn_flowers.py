"""The five flowers, each by its geometry: what tells the classes apart is their shape, since every class wears every colour."""

from collections.abc import Callable, Sequence

import numpy as np

from components.ingest.drawn_shapes import Array, Brush, Colour, around, blade, mix, shade, spin

Rng = np.random.Generator
Painter = Callable[[Brush, Rng, Colour], None]

PALETTE: dict[str, Colour] = {
    "white": (232, 230, 224),
    "cream": (236, 216, 164),
    "yellow": (236, 194, 36),
    "orange": (228, 130, 32),
    "red": (204, 28, 40),
    "pink": (238, 136, 170),
    "magenta": (196, 44, 132),
    "purple": (132, 84, 180),
}
"""Colours of petals, the same for all classes."""

USUAL: dict[str, dict[str, float]] = {
    "daisy": {"white": 6, "pink": 1, "yellow": 2, "purple": 1},
    "dandelion": {"yellow": 5, "white": 4, "cream": 1, "orange": 1},
    "roses": {"red": 4, "pink": 3, "white": 2, "yellow": 1, "orange": 1, "magenta": 1},
    "sunflowers": {"yellow": 6, "orange": 2, "cream": 1, "red": 1},
    "tulips": {"red": 3, "yellow": 2, "pink": 2, "purple": 2, "orange": 2, "white": 1},
}
"""How often a class wears a colour in nature; difficulty levels it out."""

_GOLDEN = np.pi * (3 - np.sqrt(5))
_FRONT_LIGHT = 0.22


def petal_colour(label: str, rng: Rng, difficulty: float) -> Colour:
    """A colour for one flower: the class's usual ones at difficulty 0, mostly any at 1; each flower slightly its own."""
    names = list(PALETTE)
    usual = np.array([USUAL[label].get(name, 0.0) for name in names])
    level = 0.8 * difficulty**0.5
    chances = (1 - level) * usual / usual.sum() + level / len(names)
    colour = PALETTE[names[rng.choice(len(names), p=chances)]]
    return tuple(value + change for value, change in zip(colour, rng.normal(0, 10, 3), strict=True))


def paint_daisy(brush: Brush, rng: Rng, colour: Colour) -> None:
    """One ring of 13–22 narrow, blunt petals with gaps around a small domed disc."""
    count = int(rng.integers(13, 23))
    disc = rng.uniform(0.24, 0.33)
    petal = blade(disc * 0.6, 1.0, rng.uniform(0.088, 0.105) * 18 / count, tip=0.75, belly=0.7)
    for offset, factor in ((np.pi / count, 0.82), (0.0, 1.0))[int(rng.random() < 0.6) :]:
        angles = around(count, rng, 0.2, offset)
        _ring(brush, rng, spin(petal, angles, rng.uniform(0.88, 1.0, count)), angles, shade(colour, factor), vein=0.9)
    centre = mix(PALETTE["yellow"], PALETTE["orange"], rng.uniform(0, 0.7))
    _dome(brush, disc, centre)
    _seeds(brush, rng, disc * 0.92, 26, 0.028, shade(centre, 0.72))


def paint_dandelion(brush: Brush, rng: Rng, colour: Colour) -> None:
    """A yellow-head tuft of many narrow toothed strips without a disc, or a round clock of parachutes."""
    if rng.random() < 0.45:
        _clock(brush, rng, colour)
        return
    for layer, reach in enumerate((1.0, 0.84, 0.66, 0.47, 0.28)):
        count = 30 - 4 * layer
        angles = around(count, rng, 0.45, rng.uniform(0, 1))
        strips = spin(blade(0.05, 1.0, 0.045, tip=0.9, belly=0.8), angles, reach * rng.uniform(0.82, 1.0, count))
        _ring(brush, rng, strips, angles, shade(colour, 0.72 + 0.08 * layer), vein=0.82, spread=0.1)
    curls = spin(np.array([[0.0, 0.0], [0.13, 0.03], [0.2, 0.0]]), around(14, rng, 0.4))
    brush.strokes(curls, [shade(colour, tone) for tone in rng.uniform(0.7, 1.15, len(curls))], 0.04)


def paint_rose(brush: Brush, rng: Rng, colour: Colour) -> None:
    """Broad overlapping petals in shrinking turns, darker inside, closed by a spiral."""
    angle = rng.uniform(0, 2 * np.pi)
    plan = [(0.58, 0.5)] * 6 + [(0.43, 0.43)] * 5 + [(0.29, 0.36)] * 5 + [(0.17, 0.28)] * 4 + [(0.08, 0.2)] * 3
    for number, (away, size) in enumerate(plan):
        angle += _GOLDEN * (1 + rng.uniform(-0.06, 0.06))
        depth = number / len(plan)
        tone = (1.0 - 0.42 * depth) * rng.uniform(0.93, 1.05) * _lit(brush, angle, 0.12)
        _rose_petal(brush, rng, angle, away, size, shade(colour, tone))
    _swirl(brush, rng, shade(colour, 0.42))


def paint_sunflower(brush: Brush, rng: Rng, colour: Colour) -> None:
    """Two rings of pointed petals around a large dark disc whose seeds lie in spirals."""
    count, disc = int(rng.integers(17, 26)), rng.uniform(0.46, 0.58)
    petal = blade(disc * 0.8, 1.0, rng.uniform(0.085, 0.105) * 21 / count, tip=0.0, belly=0.42)
    for offset, factor in ((np.pi / count, 0.78), (0.0, 1.0)):
        angles = around(count, rng, 0.22, offset)
        _ring(brush, rng, spin(petal, angles, rng.uniform(0.86, 1.0, count)), angles, shade(colour, factor), vein=0.8)
    dark = mix((70, 42, 22), (104, 84, 34), rng.random())
    brush.disc(disc, shade(dark, 1.25))
    brush.disc(disc * 0.93, dark)
    brush.disc(disc * rng.uniform(0.38, 0.55), mix(dark, (96, 104, 40), rng.uniform(0.1, 0.7)))
    _seeds(brush, rng, disc * 0.97, 90, 0.024, shade(dark, 0.5))
    _seeds(brush, rng, disc * 0.9, 34, 0.018, mix(dark, colour, 0.45))


def paint_tulip(brush: Brush, rng: Rng, colour: Colour) -> None:
    """A cup seen from the side: three petals behind, two at the sides, one in front."""
    open_, width = rng.uniform(0.05, 0.42), rng.uniform(0.44, 0.54)
    base = np.array([0.0, 0.92])
    tip = rng.uniform(0.0, 0.3)
    for lean, tone in ((-0.55, 0.66), (0.55, 0.66), (0.0, 0.74)):
        _tulip_petal(brush, base, lean * open_, 1.84, width * 0.95, tip, shade(colour, tone))
    for side in (-1, 1):
        tone = 0.98 - 0.16 * side * np.sign(-np.cos(brush.pose.light))
        _tulip_petal(
            brush, base + np.array([side * width * 0.38, 0.0]), side * (0.1 + open_ * 0.8), 1.8, width * 0.85, tip, shade(colour, tone)
        )
    front = rng.uniform(-0.12, 0.12)
    _tulip_petal(brush, base, front, rng.uniform(1.45, 1.7), width, tip, shade(colour, 1.06))
    t = np.linspace(0, 1, 6)[:, None]
    for place in (-0.62, -0.3, 0.0, 0.3, 0.62):
        along = np.hstack([place * width * np.sin(np.pi * (0.12 + 0.62 * t)), 0.8 - 1.25 * t])
        brush.stroke(spin(along - base, np.array([front]))[0] + base, (*shade(colour, 0.86), 150), 0.02)


PAINTERS: dict[str, Painter] = {
    "daisy": paint_daisy,
    "dandelion": paint_dandelion,
    "roses": paint_rose,
    "sunflowers": paint_sunflower,
    "tulips": paint_tulip,
}
"""Class → what draws one head of it; the sorted names are the labels."""


def _lit(brush: Brush, angle: Array | float, strength: float = _FRONT_LIGHT) -> float:
    """How much light a petal at `angle` gets: 1 ± strength."""
    return 1.0 + strength * float(np.cos(angle + brush.pose.turn - brush.pose.light))


def _ring(brush: Brush, rng: Rng, petals: Array, angles: Array, colour: Colour, vein: float, spread: float = 0.06) -> None:
    """Petals [m, n, 2] in random order, each with its own tone and a darker middle line of `vein` times its colour."""
    half = petals.shape[1] // 2
    middles = (petals[:, [0, half - 2]] + petals[:, [-1, half + 1]]) / 2
    tones = [_lit(brush, angle) * wobble for angle, wobble in zip(angles, rng.normal(1.0, spread, len(angles)), strict=True)]
    for number in rng.permutation(len(petals)):
        brush.fill(petals[number], shade(colour, tones[number]))
        brush.stroke(middles[number], shade(colour, tones[number] * vein), 0.03)


def _dome(brush: Brush, radius: float, colour: Colour) -> None:
    toward = np.array([np.cos(brush.pose.light - brush.pose.turn), np.sin(brush.pose.light - brush.pose.turn)]) * radius
    for size, shift, tone in ((1.0, 0.0, 0.68), (0.88, 0.06, 0.86), (0.62, 0.16, 1.0), (0.34, 0.26, 1.12)):
        brush.disc(radius * size, shade(colour, tone), tuple(toward * shift))


def _seeds(brush: Brush, rng: Rng, radius: float, count: int, size: float, colour: Colour) -> None:
    """Dots in the sunflower's spiral (Vogel 1979: angle k·137.5°, distance √k)."""
    k = np.arange(count) + 0.5
    angle, distance = k * _GOLDEN + rng.uniform(0, 6), radius * np.sqrt(k / count)
    brush.dots(np.stack([distance * np.cos(angle), distance * np.sin(angle)], axis=1), size, colour)


def _clock(brush: Brush, rng: Rng, colour: Colour) -> None:
    """Parachutes on a sphere: hair stars at the ends of thin spokes, some of them flown away."""
    pale = mix(colour, (230, 230, 226), 0.65)
    brush.disc(0.93, (*pale, 60))
    brush.disc(0.74, (*pale, 50))
    count = 110 if brush.pose.radius > 40 else 50
    k = np.arange(count) + 0.5
    lift = 1 - k / count
    angles, reach = k * _GOLDEN + rng.uniform(0, 6), 0.95 * np.sqrt(1 - lift**2)
    ends = np.stack([reach * np.cos(angles), reach * np.sin(angles)], axis=1)
    gone = rng.uniform(0, 2 * np.pi) if rng.random() < 0.3 else None
    if gone is not None:
        ends, angles = ends[keep := np.cos(angles - gone) < 0.75], angles[keep]
    tones = [shade(pale, rng.uniform(0.86, 1.1) * _lit(brush, angle, 0.12)) for angle in angles]
    _parachutes(brush, rng, ends, tones)
    brush.disc(0.13, shade((150, 122, 70), 0.8))
    _seeds(brush, rng, 0.12, 12, 0.02, (80, 60, 36))


def _parachutes(brush: Brush, rng: Rng, ends: Array, colours: Sequence[Colour]) -> None:
    """Spokes from the middle to `ends` [n, 2], each with a star of seven hairs."""
    brush.strokes(np.stack([ends * 0.12, ends], axis=1), [(*shade(colour, 0.9), 130) for colour in colours], 0.012)
    hairs = spin(np.array([[0.0, 0.0], [0.12, 0.0]]), np.concatenate([around(7, rng, 0.3, turn) for turn in rng.uniform(0, 2, len(ends))]))
    hairs = hairs + np.repeat(ends, 7, axis=0)[:, None]
    brush.strokes(hairs, [(*colour, 215) for colour in colours for _ in range(7)], 0.014)


def _rose_petal(brush: Brush, rng: Rng, angle: float, away: float, size: float, colour: Colour) -> None:
    """A broad rounded petal: a light rim, then its body, then a shadow toward the middle."""
    t = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    wave = 1 + 0.05 * np.cos(3 * t + rng.uniform(0, 6))
    outline = np.stack([np.cos(t) * 0.82, np.sin(t) * 1.12], axis=1) * (size * wave)[:, None]
    for scale, shift, tone in ((1.0, 0.0, 1.16), (0.93, -0.02, 1.0), (0.66, -0.1, 0.86)):
        moved = outline * scale + (away + shift * size * 2, 0.0)
        brush.fill(spin(moved, np.array([angle]))[0], shade(colour, tone))


def _swirl(brush: Brush, rng: Rng, colour: Colour) -> None:
    t = np.linspace(0.4, 9.5, 26)
    line = np.stack([np.cos(t), np.sin(t)], axis=1) * (0.024 * t)[:, None]
    brush.stroke(spin(line, np.array([rng.uniform(0, 6)]))[0], colour, 0.035)
    for reach in (0.36, 0.55):
        start = rng.uniform(0, 2 * np.pi)
        arc = np.linspace(start, start + rng.uniform(1.2, 2.4), 9)
        brush.stroke(np.stack([np.cos(arc), np.sin(arc)], axis=1) * reach, shade(colour, 1.35), 0.025)


def _tulip_petal(brush: Brush, base: Array, lean: float, length: float, width: float, tip: float, colour: Colour) -> None:
    """An ovate petal that stands on `base` and leans by `lean` radians; lighter along the middle."""
    up = np.array([lean - np.pi / 2])
    for share, tone in ((1.0, 0.9), (0.8, 1.0), (0.45, 1.08)):
        outline = blade(0.0, length * (0.9 + 0.1 * share), width * share, tip=tip * share, belly=0.45)
        brush.fill(spin(outline, up)[0] + base, shade(colour, tone))
