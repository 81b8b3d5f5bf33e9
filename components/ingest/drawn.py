"""Drawn flowers: an embedded, seeded generator of the five classes for machines without a network.

A picture is a background, stems and leaves, one to several heads of the class in a random pose, what stands in front of them,
and a camera. What is near is drawn at twice the size and averaged down. Picture `index` of a class is a pure function of
(settings, class, index).
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from platformdirs import user_cache_path

from components.core.digest import canonical_json, sha256_json, sha256_source
from components.core.errors import UsageError
from components.ingest.drawn_flowers import PAINTERS, petal_colour
from components.ingest.drawn_scene import draw_ground, draw_occluders, draw_stem, take_photograph
from components.ingest.drawn_shapes import Brush, Colour, Pose
from components.ingest.settings_drawn import DrawnSettings

__all__ = ["DrawnSettings", "cached_dataset", "draw_dataset", "draw_image", "drawn_labels"]

_SUPERSAMPLING = 2
_MARK = ".drawn.json"
_SOURCE = [f"components.ingest.drawn{part}" for part in ("", "_flowers", "_scene", "_shapes")]
_SPAWN_FROM = 400
"""Below this many pictures one process is done before others have started."""

Rng = np.random.Generator


def drawn_labels() -> list[str]:
    """The five classes, sorted."""
    return sorted(PAINTERS)


def draw_image(label: str, index: int, settings: DrawnSettings) -> Image.Image:
    """Picture `index` of the class `label`: RGB, `settings.size` square, the same every time."""
    rng = np.random.default_rng([settings.seed, drawn_labels().index(label), index])
    size, difficulty = settings.size, settings.difficulty
    colour = petal_colour(label, rng, difficulty)
    near, far = _poses(label, rng, size, difficulty)
    ground = _draw_heads(draw_ground(size, rng, difficulty), label, rng, far, colour)
    ground = ground.filter(ImageFilter.GaussianBlur(size * rng.uniform(0.003, 0.012)))
    scene = ground.resize((size * _SUPERSAMPLING, size * _SUPERSAMPLING), Image.Resampling.BILINEAR)
    scene = _draw_heads(scene, label, rng, [near], colour)
    draw_occluders(ImageDraw.Draw(scene, "RGBA"), rng, scene.width, difficulty)
    return take_photograph(scene, size, rng, difficulty)


def draw_dataset(folder: Path, settings: DrawnSettings) -> None:
    """Draw every class into `folder/<class>/<index>.jpg`, in parallel; a folder that holds the same drawing is left alone.

    The folder appears complete or not at all. Raises `UsageError` if something else is in it.
    """
    if _holds(folder, settings):
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError("holds something else than this drawing", where=str(folder), fix="Name an empty or a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial_folder = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _draw_all(partial_folder, settings)
        (partial_folder / _MARK).write_bytes(_mark(settings))
        partial_folder.chmod(0o755)
        _publish(partial_folder, folder, settings)
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)


def cached_dataset(settings: DrawnSettings, cache: Path | None = None) -> Path:
    """The folder of this drawing in the user's cache (or in `cache`), drawn on first use and again when the generator changed."""
    root = cache if cache is not None else user_cache_path("dual-deploy")
    folder = root / "drawn" / sha256_json(_mark(settings).decode())[:16]
    draw_dataset(folder, settings)
    return folder


def _mark(settings: DrawnSettings) -> bytes:
    return canonical_json({"settings": settings.model_dump(), "source": sha256_source(_SOURCE)})


def _holds(folder: Path, settings: DrawnSettings) -> bool:
    mark = folder / _MARK
    return mark.is_file() and mark.read_bytes() == _mark(settings)


def _publish(partial_folder: Path, folder: Path, settings: DrawnSettings) -> None:
    """Rename; losing the race to another process that drew the same is as good as winning it."""
    try:
        partial_folder.rename(folder)
    except OSError:
        if not _holds(folder, settings):
            raise


def _draw_all(folder: Path, settings: DrawnSettings) -> None:
    for label in drawn_labels():
        (folder / label).mkdir()
    tasks = [(label, index) for label in drawn_labels() for index in range(settings.images_per_class)]
    draw = partial(_draw_files, folder, settings)
    workers = min(os.cpu_count() or 1, len(tasks) // (_SPAWN_FROM // 2))
    if workers < 2:
        draw(tasks)
        return
    try:
        # TensorFlow's threads may be running in this process: forking it could hang, so workers are spawned.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            list(pool.map(draw, [tasks[start :: workers * 4] for start in range(workers * 4)]))
    except BrokenProcessPool:  # a parent without an importable __main__ (a notebook, a pipe) can't spawn
        draw(tasks)


def _draw_files(folder: Path, settings: DrawnSettings, tasks: Sequence[tuple[str, int]]) -> None:
    for label, index in tasks:
        draw_image(label, index, settings).save(folder / label / f"{index:05d}.jpg", quality=90)


def _poses(label: str, rng: Rng, size: int, difficulty: float) -> tuple[Pose, list[Pose]]:
    """The near head in supersampled pixels, and smaller ones farther away in final pixels."""
    light = rng.uniform(-np.pi, 0)
    wander = 0.1 + 0.08 * difficulty
    near = _pose(label, rng, size * _SUPERSAMPLING, rng.uniform(0.36 - 0.16 * difficulty, 0.44), light, wander)
    others = rng.poisson(0.6 + 1.4 * difficulty)
    return near, [_pose(label, rng, size, rng.uniform(0.09, 0.2), light, 0.42) for _ in range(others)]


def _pose(label: str, rng: Rng, canvas: int, radius: float, light: float, wander: float) -> Pose:
    x, y = (0.5 + rng.uniform(-wander, wander)) * canvas, (0.46 + rng.uniform(-wander, wander)) * canvas
    if label == "tulips":
        return Pose(x, y, radius * canvas * 0.92, turn=rng.normal(0, 0.2), light=light)
    return Pose(x, y, radius * canvas, turn=rng.uniform(0, 2 * np.pi), tilt=abs(rng.normal(0, 0.2)) % 0.6, light=light)


def _draw_heads(scene: Image.Image, label: str, rng: Rng, poses: Sequence[Pose], colour: Colour) -> Image.Image:
    draw = ImageDraw.Draw(scene, "RGBA")
    for pose in poses:
        if label == "tulips" or rng.random() < 0.7:
            draw_stem(draw, rng, pose, leaves=rng.random() < 0.6)
        PAINTERS[label](Brush(draw, pose), rng, colour)
    return scene
