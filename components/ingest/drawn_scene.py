"""Everything in a drawn photograph but the flower heads: ground, stems and leaves, what stands in the way, and the camera."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from components.ingest.drawn_flowers import PALETTE
from components.ingest.drawn_shapes import Array, Brush, Colour, Pose, blade, clip, mix, shade, spin

Rng = np.random.Generator

_GROUNDS: tuple[tuple[Colour, Colour], ...] = (
    ((74, 118, 48), (36, 72, 30)),
    ((120, 150, 70), (60, 96, 44)),
    ((24, 40, 22), (12, 18, 14)),
    ((150, 190, 226), (98, 138, 92)),
    ((110, 88, 62), (62, 50, 38)),
    ((170, 166, 156), (112, 108, 102)),
    ((64, 70, 92), (30, 34, 48)),
)
_GREENS: tuple[Colour, ...] = ((66, 116, 44), (96, 140, 60), (48, 92, 52), (122, 148, 76))


def draw_ground(size: int, rng: Rng, difficulty: float) -> Image.Image:
    """A blurred background [size, size]: two tones, cloudy noise, soft lights in petal colours, out-of-focus grass."""
    top, bottom = _GROUNDS[rng.integers(len(_GROUNDS))]
    small = max(16, size // 4)
    ramp = np.linspace(0, 1, small)[:, None, None]
    cells = rng.normal(0, 14 + 22 * difficulty, (5, 5, 1)) + rng.normal(0, 8, (5, 5, 3))
    pixels = np.array(top) * (1 - ramp) + np.array(bottom) * ramp + _smooth(cells, small)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(rng.poisson(2 + 10 * difficulty)):
        _bokeh(draw, rng, small)
    for _ in range(rng.poisson(4 + 8 * difficulty)):
        _grass(draw, rng, small, alpha=130)
    return image.filter(ImageFilter.GaussianBlur(small * 0.02)).resize((size, size), Image.Resampling.BICUBIC)


def draw_stem(draw: ImageDraw.ImageDraw, rng: Rng, pose: Pose, leaves: bool) -> None:
    """A bent stem from the head to the lower edge, behind the head, with or without leaves."""
    height = draw.im.size[1] if draw.im else 0
    colour = shade(_GREENS[rng.integers(len(_GREENS))], rng.uniform(0.8, 1.1))
    foot = (pose.x + rng.normal(0, 0.6) * pose.radius, height + pose.radius)
    t = np.linspace(0, 1, 10)[:, None]
    bend = np.array([pose.x, (pose.y + foot[1]) / 2])
    line = (1 - t) ** 2 * np.array([pose.x, pose.y]) + 2 * t * (1 - t) * bend + t**2 * np.array(foot)
    draw.line(line.ravel().tolist(), fill=clip(colour), width=max(2, round(pose.radius * 0.13)), joint="curve")
    draw.line(
        (line + np.array([pose.radius * 0.03, 0.0])).ravel().tolist(),
        fill=clip(shade(colour, 0.75)),
        width=max(1, round(pose.radius * 0.04)),
    )
    for side in (-1, 1) if leaves else ():
        _leaf(draw, rng, line[rng.integers(4, 8)], side, pose.radius, colour)


def draw_occluders(draw: ImageDraw.ImageDraw, rng: Rng, size: int, difficulty: float) -> None:
    """Grass and leaves in front of the flowers."""
    for _ in range(rng.poisson(0.4 + 3 * difficulty)):
        _grass(draw, rng, size, alpha=255)
    for _ in range(rng.poisson(0.7 * difficulty)):
        x, y = rng.uniform(0, size, 2)
        _leaf(draw, rng, np.array([x, y]), int(rng.choice([-1, 1])), size * rng.uniform(0.1, 0.25), _GREENS[rng.integers(len(_GREENS))])


def take_photograph(scene: Image.Image, size: int, rng: Rng, difficulty: float) -> Image.Image:
    """The camera: scale down to `size`, uneven light, white balance, exposure, lens blur, sensor noise."""
    image = scene.resize((size, size), Image.Resampling.BOX)
    if rng.random() < 0.15 + 0.45 * difficulty:
        image = image.filter(ImageFilter.GaussianBlur(size / 128 * rng.uniform(0.2, 0.3 + 0.9 * difficulty)))
    light = 1 + _smooth(rng.normal(0, 0.05 + 0.14 * difficulty, (3, 3, 1)), size)
    gain = rng.normal(1, 0.02 + 0.06 * difficulty, 3) * np.exp(rng.normal(-0.02, 0.05 + 0.13 * difficulty))
    noise = rng.normal(0, 1, (size, size, 1)).astype(np.float32) * np.float32(1 + 6 * difficulty**2 * rng.random())
    pixels = np.asarray(image, np.float32) * (light * gain).astype(np.float32) + noise
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _smooth(cells: Array, size: int) -> Array:
    """Cells [h, w, c] enlarged to [size, size, c] without edges."""
    planes = [Image.fromarray(cells[..., c].astype(np.float32)) for c in range(cells.shape[-1])]
    return np.stack([np.asarray(p.resize((size, size), Image.Resampling.BICUBIC)) for p in planes], axis=-1)


def _bokeh(draw: ImageDraw.ImageDraw, rng: Rng, size: int) -> None:
    colour = list(PALETTE.values())[rng.integers(len(PALETTE))]
    x, y, radius = rng.uniform(0, size), rng.uniform(0, size), size * rng.uniform(0.03, 0.14)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(*clip(colour), int(rng.uniform(60, 200))))


def _grass(draw: ImageDraw.ImageDraw, rng: Rng, size: int, alpha: int) -> None:
    colour = mix(_GREENS[rng.integers(len(_GREENS))], (190, 180, 110), rng.uniform(0, 0.5))
    pose = Pose(rng.uniform(0, size), size * rng.uniform(0.95, 1.1), size * rng.uniform(0.25, 0.8), turn=rng.normal(-np.pi / 2, 0.35))
    Brush(draw, pose).fill(blade(0.0, 1.0, rng.uniform(0.015, 0.04), tip=0.0, belly=0.3), (*colour, alpha))


def _leaf(draw: ImageDraw.ImageDraw, rng: Rng, at: Array, side: int, length: float, colour: Colour) -> None:
    brush = Brush(draw, Pose(at[0], at[1], length * rng.uniform(1.0, 1.7)))
    angle = np.array([-np.pi / 2 + side * rng.uniform(0.5, 1.2)])
    tone = shade(colour, rng.uniform(0.75, 1.15))
    brush.fill(spin(blade(0, 1, rng.uniform(0.13, 0.24), tip=0.1, belly=0.42), angle)[0], tone)
    brush.stroke(spin(np.array([[0.0, 0.0], [0.9, 0.0]]), angle)[0], shade(tone, 1.25), 0.03)
