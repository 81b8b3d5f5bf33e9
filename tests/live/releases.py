"""Releases for real pods: good ones that tell apart by their answers, and bad ones of every kind."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from components.core.release import Release
from components.core.stores import Store, open_store
from tests.conftest import tiny_jpeg
from tests.release_pieces import GoldenImage, make_release
from tests.serving.saved_model import TinyClassifier, export_tiny

Kind = Literal["good", "wrong", "slow", "errors", "broken"]
IMAGES = [tiny_jpeg(label, seed=label) for label in range(3)]
_SPIN = 1200


class SlowClassifier(TinyClassifier):
    """Right answers, late: a few hundred milliseconds of arithmetic for each request."""

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="pixels")])
    def from_pixels(self, pixels: Any) -> dict[str, Any]:
        start = tf.random.uniform([300, 300])
        spun = tf.while_loop(lambda turn, _: turn < _SPIN, lambda turn, m: (turn + 1, tf.linalg.matmul(m, start) / 150.0), [0, start])[1]
        answer = TinyClassifier.from_pixels.python_function(self, pixels)  # pyright: ignore
        # The product of the work with 0: no optimizer may leave it out.
        return {**answer, "probabilities": answer["probabilities"] + 0.0 * tf.reduce_mean(spun)}


class FailingClassifier(TinyClassifier):
    """Refuses every image."""

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="pixels")])
    def from_pixels(self, pixels: Any) -> dict[str, Any]:
        with tf.control_dependencies([tf.debugging.assert_less(tf.reduce_max(tf.cast(pixels, tf.float32)), 0.0)]):
            return TinyClassifier.from_pixels.python_function(self, tf.identity(pixels))  # pyright: ignore


@dataclass(frozen=True)
class Releases:
    """A store, its releases by name, and what each must answer to `IMAGES`."""

    store: Store
    releases: dict[str, Release]
    expected: dict[str, Any]
    """Release id → probabilities float [images, classes]."""

    def __getitem__(self, name: str) -> str:
        """The id of a release."""
        return self.releases[name].id


def make_releases(root: Path, kinds: dict[str, Kind]) -> Releases:
    """A store in `root` with one release for each name; nothing is published."""
    store = open_store(str(root / "store"))
    releases, expected = {}, {}
    for number, (name, kind) in enumerate(kinds.items()):
        bias = 0.4 * number
        folder = _export(root / f"model-{name}", kind, bias)
        golden = golden_of(bias)
        releases[name] = make_release(store, root, number, saved_model=folder, golden=golden)
        expected[releases[name].id] = np.asarray([image.probabilities for image in golden])
    return Releases(store, releases, expected)


def golden_of(bias: float) -> list[GoldenImage]:
    """The images with a good model's answers."""
    model = TinyClassifier(bias)
    answers: Any = model.serve(IMAGES)
    facts = zip(IMAGES, answers["label"].numpy(), answers["probabilities"].numpy(), strict=True)
    return [GoldenImage(f"{n:02}.jpg", image, label.decode(), list(p)) for n, (image, label, p) in enumerate(facts)]


def _export(folder: Path, kind: Kind, bias: float) -> Path:
    if kind == "wrong":
        return export_tiny(folder, bias + 3.0)
    if kind in ("slow", "errors"):
        model = {"slow": SlowClassifier, "errors": FailingClassifier}[kind](bias)
        functions = {"serving_default": model.serve, "from_pixels": model.from_pixels, "transform": model.transform}
        tf.saved_model.save(model, str(folder), signatures={name: f.get_concrete_function() for name, f in functions.items()})
        return folder
    export_tiny(folder, bias)
    if kind == "broken":
        (folder / "saved_model.pb").write_bytes(b"no graph")
        shutil.rmtree(folder / "variables")
    return folder
