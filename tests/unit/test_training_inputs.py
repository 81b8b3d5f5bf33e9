"""The input path: what is decoded, in which order, and what augmentation may do."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from components.core.errors import DataError
from components.core.examples import MANIFEST, read_examples
from components.core.preprocessing import Preprocessing
from components.training.settings import AugmentSettings
from tests.conftest import tiny_jpeg

SMALL = Preprocessing(height=32, width=32)
STILL = AugmentSettings(flip=False, min_crop=1, brightness=0, contrast=0, saturation=0)


@pytest.fixture(scope="module")
def train_split(tiny_examples: Path):
    from components.training.inputs import Inputs

    return Inputs(tiny_examples, "train", SMALL, cache_megabytes=64)


def pixels_of(batches) -> np.ndarray:
    return np.concatenate([np.asarray(batch[0]) for batch in batches])


def test_pixels_are_those_of_the_contract_in_order(train_split, tiny_examples: Path) -> None:
    from components.training.records import read_split
    from components.training.transform import decode_and_resize

    records = list(read_split(tiny_examples, "train"))
    wanted = np.stack([decode_and_resize(record["image"], SMALL) for record in records])
    np.testing.assert_array_equal(pixels_of(train_split.plain(7)), wanted.astype(np.float32))
    np.testing.assert_array_equal(train_split.labels, [int(record["label"]) for record in records])
    targets = np.concatenate([np.asarray(batch[1]) for batch in train_split.plain(7)])
    np.testing.assert_array_equal(targets.argmax(axis=1), train_split.labels)


def test_an_epoch_has_every_image_once_in_its_own_order(train_split) -> None:
    def epoch(number: int, seed: int = 1) -> np.ndarray:
        return pixels_of(train_split.epoch(8, number, STILL, seed, [1, 1, 1]))

    plain = pixels_of(train_split.plain(8))
    assert sorted(map(np.mean, epoch(0))) == pytest.approx(sorted(map(np.mean, plain)))
    np.testing.assert_array_equal(epoch(1), epoch(1))
    assert not np.array_equal(epoch(0), epoch(1))
    assert not np.array_equal(epoch(0), epoch(0, seed=2))


def test_sample_weights_follow_the_labels(train_split) -> None:
    for _, targets, weights in train_split.epoch(8, 0, STILL, 1, [0.5, 1, 3]):
        np.testing.assert_array_equal(np.asarray(weights), np.array([0.5, 1, 3])[np.asarray(targets).argmax(axis=1)])


def test_augmented_views_repeat_themselves_and_differ(train_split) -> None:
    def view(number: int, seed: int = 1) -> np.ndarray:
        return pixels_of(train_split.view(8, number, AugmentSettings(), seed))

    np.testing.assert_array_equal(view(0), view(0))
    assert not np.array_equal(view(0), view(1))
    assert not np.array_equal(view(0), view(0, seed=2))
    assert view(0).min() >= 0
    assert view(0).max() <= 255
    assert view(0).shape == pixels_of(train_split.plain(8)).shape


def test_augmentation_without_changes_changes_nothing(train_split) -> None:
    np.testing.assert_allclose(pixels_of(train_split.view(8, 0, STILL, 1)), pixels_of(train_split.plain(8)), atol=0.01)


def test_mirroring_mirrors_about_half_of_the_images(train_split) -> None:
    plain = pixels_of(train_split.plain(8))
    changed = pixels_of(train_split.view(8, 0, STILL.model_copy(update={"flip": True}), 1))
    mirrored = [np.allclose(new, old[:, ::-1], atol=0.01) for new, old in zip(changed, plain, strict=True)]
    still = [np.allclose(new, old, atol=0.01) for new, old in zip(changed, plain, strict=True)]
    assert all(a != b for a, b in zip(mirrored, still, strict=True))
    assert 0.25 < np.mean(mirrored) < 0.75


def test_recolouring_is_saturation_then_contrast_then_brightness() -> None:
    from components.training.augment import _recolour

    random = np.random.default_rng(1)
    images = random.uniform(60, 190, (2, 5, 5, 3)).astype(np.float32)
    draws = random.uniform(0, 1, (2, 8)).astype(np.float32)
    settings = AugmentSettings(saturation=0.5, contrast=0.4, brightness=0.3)
    s, c, b = ((1 + largest * (2 * draws[:, column] - 1))[:, None, None, None] for column, largest in ((4, 0.5), (5, 0.4), (6, 0.3)))
    grey = (images @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    saturated = grey + s * (images - grey)
    mean = saturated.mean(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(_recolour(images, draws, settings), b * (mean + c * (saturated - mean)), rtol=1e-4)


def test_pixels_that_do_not_fit_in_memory_are_cached_in_a_file(train_split, tiny_examples: Path) -> None:
    from components.training.inputs import Inputs

    on_disk = Inputs(tiny_examples, "train", SMALL, cache_megabytes=0)
    np.testing.assert_array_equal(pixels_of(on_disk.plain(8)), pixels_of(train_split.plain(8)))


def test_an_empty_split_is_refused(tiny_examples: Path, tmp_path: Path) -> None:
    from components.training.inputs import Inputs

    examples = read_examples(tiny_examples)
    examples.splits["validation"].count = 0
    (tmp_path / MANIFEST).write_text(examples.model_dump_json(by_alias=True))
    with pytest.raises(DataError, match="the validation split has no examples"):
        Inputs(tmp_path, "validation", SMALL, cache_megabytes=64)


@pytest.mark.parametrize("damage", ["truncated", "fewer", "missing", "no image"])
def test_damaged_examples_are_named(tiny_examples: Path, tmp_path: Path, damage: str) -> None:
    import tensorflow as tf

    from components.training.inputs import Inputs

    root = Path(shutil.copytree(tiny_examples, tmp_path / "examples"))
    shard = root / read_examples(root).splits["validation"].shards[0]
    records = [bytes(record.numpy()) for record in tf.data.TFRecordDataset(str(shard))]
    if damage == "truncated":
        shard.write_bytes(shard.read_bytes()[:-100])
    elif damage == "missing":
        shard.unlink()
    else:
        if damage == "no image":
            spoilt = tf.train.Example.FromString(records[0])
            spoilt.features.feature["image/encoded"].bytes_list.value[0] = tiny_jpeg(0, 1)[:40]
            records.append(spoilt.SerializeToString())
        with tf.io.TFRecordWriter(str(shard)) as writer:
            for record in records[1:]:
                writer.write(record)
    with pytest.raises(DataError, match="Run the ingest step again"):
        Inputs(root, "validation", SMALL, cache_megabytes=64)
