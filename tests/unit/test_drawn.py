"""The drawn flowers: the same every time, five classes that shape and not colour tells apart, whole folders or none."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from components.core.digest import sha256_bytes, sha256_tree
from components.core.errors import UsageError
from components.ingest import drawn
from components.ingest.drawn import DrawnSettings, cached_dataset, draw_dataset, draw_image, drawn_labels

ROOT = Path(__file__).resolve().parents[2]
SMALL = DrawnSettings(images_per_class=3, size=48)


def pixels(label: str, index: int, settings: DrawnSettings) -> NDArray[np.uint8]:
    return np.asarray(draw_image(label, index, settings))


def test_labels_are_the_flowers_classes() -> None:
    assert drawn_labels() == ["daisy", "dandelion", "roses", "sunflowers", "tulips"]


@pytest.mark.parametrize("label", drawn_labels())
@pytest.mark.parametrize(("size", "difficulty"), [(32, 1.0), (97, 0.0), (300, 0.7)])
def test_a_picture_has_the_size_and_is_no_flat_field(label: str, size: int, difficulty: float) -> None:
    image = draw_image(label, 0, DrawnSettings(size=size, difficulty=difficulty))
    assert (image.mode, image.size) == ("RGB", (size, size))
    assert np.asarray(image).std() > 12


def test_a_picture_depends_on_seed_class_and_index_only() -> None:
    again = DrawnSettings(images_per_class=99, size=48)
    assert np.array_equal(pixels("roses", 7, SMALL), pixels("roses", 7, again)), "how many others there are doesn't matter"
    seen = {
        sha256_bytes(pixels(label, index, SMALL.model_copy(update={"seed": seed})).tobytes())
        for label in drawn_labels()
        for index in (0, 1)
        for seed in (1, 2)
    }
    assert len(seen) == 20


def test_a_picture_is_the_same_in_another_process() -> None:
    code = (
        "from components.ingest.drawn import *; from components.core.digest import sha256_bytes;"
        "print(sha256_bytes(draw_image('tulips', 4, DrawnSettings(size=48)).tobytes()))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == sha256_bytes(draw_image("tulips", 4, DrawnSettings(size=48)).tobytes())


@pytest.mark.parametrize("wrong", [{"images_per_class": 0}, {"size": 31}, {"difficulty": 1.1}, {"seed": -1}, {"sise": 64}])
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        DrawnSettings.model_validate(wrong)


def test_a_dataset_is_class_folders_of_jpegs(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "a", SMALL)
    files = sorted(p.relative_to(tmp_path / "a").as_posix() for p in (tmp_path / "a").rglob("*.jpg"))
    assert files == [f"{label}/{index:05d}.jpg" for label in drawn_labels() for index in range(3)]
    with Image.open(tmp_path / "a" / "daisy" / "00002.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (48, 48))
    assert [p.name for p in tmp_path.iterdir()] == ["a"], "no temporary folder is left"


def test_processes_draw_the_same_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_dataset(tmp_path / "one", SMALL)
    monkeypatch.setattr(drawn, "_SPAWN_FROM", 4)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    draw_dataset(tmp_path / "two", SMALL)
    assert sha256_tree(tmp_path / "one") == sha256_tree(tmp_path / "two")


def test_a_parent_that_cannot_spawn_draws_alone(tmp_path: Path) -> None:
    code = (
        "import os; os.cpu_count = lambda: 2\n"
        "from pathlib import Path; from components.ingest import drawn; drawn._SPAWN_FROM = 4\n"
        f"drawn.draw_dataset(Path({str(tmp_path / 'piped')!r}), drawn.DrawnSettings(images_per_class=3, size=48))\n"
    )
    subprocess.run([sys.executable, "-"], input=code, cwd=ROOT, text=True, check=True, capture_output=True, timeout=60)
    draw_dataset(tmp_path / "here", SMALL)
    assert sha256_tree(tmp_path / "piped") == sha256_tree(tmp_path / "here")


def test_the_same_drawing_is_reused_and_another_folder_is_not_overwritten(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "a", SMALL)
    before = (tmp_path / "a" / "daisy").stat().st_mtime_ns
    draw_dataset(tmp_path / "a", SMALL)
    assert (tmp_path / "a" / "daisy").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="holds something else"):
        draw_dataset(tmp_path / "a", SMALL.model_copy(update={"seed": 2}))
    (tmp_path / "empty").mkdir()
    draw_dataset(tmp_path / "empty", SMALL)
    assert (tmp_path / "empty" / "daisy" / "00000.jpg").exists()


def test_a_failure_half_way_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = drawn.draw_image

    def failing(label: str, index: int, settings: DrawnSettings) -> Image.Image:
        if label == "sunflowers":
            raise OSError("no space")
        return whole(label, index, settings)

    monkeypatch.setattr(drawn, "draw_image", failing)
    with pytest.raises(OSError, match="no space"):
        draw_dataset(tmp_path / "a", SMALL)
    assert list(tmp_path.iterdir()) == []


def test_the_cache_knows_settings_and_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cached_dataset(SMALL, tmp_path)
    assert cached_dataset(SMALL, tmp_path) == first
    assert cached_dataset(SMALL.model_copy(update={"difficulty": 0.9}), tmp_path) != first
    monkeypatch.setattr(drawn, "sha256_source", lambda _: "changed")
    assert cached_dataset(SMALL, tmp_path) != first


@pytest.fixture(scope="module")
def corpus() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """100 pictures of each class as the default settings draw them, scaled to 32 px: features [500, 32, 32, 3] in −½–½, labels."""
    settings = DrawnSettings(size=64)
    images = [draw_image(label, index, settings).resize((32, 32), Image.Resampling.BOX) for label in drawn_labels() for index in range(100)]
    return np.stack([np.asarray(image) for image in images]) / 255 - 0.5, np.repeat(np.arange(5), 100)


def ridge_accuracy(features: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Held-out accuracy (a quarter) of the best of several ridge classifiers; chance is 0.2."""
    order = np.random.default_rng(0).permutation(len(labels))
    train, test = order[: len(order) * 3 // 4], order[len(order) * 3 // 4 :]
    mean = features[train].mean(axis=0)
    seen, unseen, wanted = features[train] - mean, features[test] - mean, np.eye(5)[labels[train]] - 0.2
    scores = []
    for strength in (0.1, 1, 10, 100, 1000, 10000):
        weights = np.linalg.solve(seen @ seen.T + strength * np.eye(len(train)), wanted)
        scores.append(float(np.mean((unseen @ seen.T @ weights).argmax(axis=1) == labels[test])))
    return max(scores)


def test_a_linear_model_on_pixels_cannot_tell_them_apart(corpus: tuple[NDArray[np.float64], NDArray[np.int64]]) -> None:
    images, labels = corpus
    assert ridge_accuracy(images.reshape(len(images), -1), labels) < 0.6


def test_colour_alone_cannot_tell_them_apart(corpus: tuple[NDArray[np.float64], NDArray[np.int64]]) -> None:
    images, labels = corpus
    bins = np.minimum(((images + 0.5) * 6).astype(int), 5) @ np.array([36, 6, 1])
    histograms = np.sqrt(np.stack([np.bincount(image.ravel(), minlength=216) for image in bins]) / 1024)
    assert ridge_accuracy(histograms, labels) < 0.65


@pytest.mark.slow
def test_a_small_convolutional_network_learns_them() -> None:
    import keras

    keras.utils.set_random_seed(1)
    settings = DrawnSettings(size=64)
    images = np.stack([pixels(label, index, settings) for label in drawn_labels() for index in range(200)])
    labels = np.repeat(np.arange(5), 200)
    held = np.arange(len(labels)) % 4 == 0
    layers = keras.layers
    model = keras.Sequential([layers.Rescaling(1 / 127.5, -1), layers.RandomFlip(), layers.Conv2D(24, 5, strides=2, activation="relu")])
    for width in (48, 64, 96):
        model.add(layers.BatchNormalization(momentum=0.9))
        model.add(layers.Conv2D(width, 3, activation="relu"))
        model.add(layers.MaxPool2D())
    model.add(layers.GlobalMaxPool2D())
    model.add(layers.Dense(5, activation="softmax"))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images[~held], labels[~held], epochs=16, batch_size=32, verbose=0)  # type: ignore[arg-type]
    assert model.evaluate(images[held], labels[held], verbose=0)[1] > 0.8  # type: ignore[arg-type]
