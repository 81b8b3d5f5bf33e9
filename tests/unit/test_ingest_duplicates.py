"""The same picture more than once: exact, under two labels, nearly, within and across splits; and the search for it."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance

from components.core.errors import DataError
from components.ingest.hashing import LOOK_BYTES, looks, thumbnail
from components.ingest.near import near_pairs
from tests.unit.ingest_runs import class_folders, encoded, ingest, picture


def resaved(path: Path, quality: int = 60, scale: float = 1.0) -> bytes:
    with Image.open(path) as image:
        return encoded(image.resize((round(image.width * scale), round(image.height * scale))), "JPEG", quality=quality)


def split_folders(root: Path) -> Path:
    for number, split in enumerate(("train", "validation", "test")):
        class_folders(root / split, per_class=6, seed=100 * number)
    return root


def test_exact_copies_keep_one(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data")
    for name in ("copy.jpg", "a copy.jpg"):
        (data / "cats" / name).write_bytes((data / "cats" / "003.jpg").read_bytes())
    run = ingest(data, tmp_path)
    assert [(f.key, f.detail, f.action) for f in run.of_kind("duplicate")] == [
        ("cats/a copy.jpg", "same file as cats/003.jpg", "skipped"),
        ("cats/copy.jpg", "same file as cats/003.jpg", "skipped"),
    ]
    assert len(run.splits()) == 24
    kept = ingest(data, tmp_path, "kept", policies={"duplicate": "keep"})
    splits = kept.splits()
    assert len(splits) == 26
    assert len({splits[f"cats/{name}.jpg"] for name in ("copy", "a copy", "003")}) == 1
    with pytest.raises(DataError, match=r"policies\.duplicate"):
        ingest(data, tmp_path, "refused", policies={"duplicate": "refuse"})


def test_exact_copies_across_splits_leave_the_test_clean(tmp_path: Path) -> None:
    data = split_folders(tmp_path / "data")
    (data / "train" / "cats" / "leak.jpg").write_bytes((data / "test" / "cats" / "001.jpg").read_bytes())
    (data / "validation" / "cats" / "leak.jpg").write_bytes((data / "test" / "cats" / "001.jpg").read_bytes())
    run = ingest(data, tmp_path)
    assert run.names("duplicate") == ["train/cats/leak.jpg", "validation/cats/leak.jpg"]
    assert run.splits()["test/cats/001.jpg"] == "test"


def test_one_picture_under_two_labels_is_a_conflict(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data")
    (data / "dogs" / "odd.jpg").write_bytes((data / "cats" / "003.jpg").read_bytes())
    run = ingest(data, tmp_path)
    assert [(f.key, f.action) for f in run.of_kind("label_conflict")] == [("cats/003.jpg", "skipped"), ("dogs/odd.jpg", "skipped")]
    assert run.of_kind("label_conflict")[0].detail == "the same picture is labelled cats and dogs"
    assert not {"cats/003.jpg", "dogs/odd.jpg"} & run.splits().keys()
    kept = ingest(data, tmp_path, "kept", policies={"label_conflict": "keep"})
    assert {f.action for f in kept.of_kind("label_conflict")} == {"kept"}
    assert {"cats/003.jpg", "dogs/odd.jpg"} <= kept.splits().keys()
    with pytest.raises(DataError, match=r"policies\.label_conflict: .*cats/003.jpg.*dogs/odd.jpg"):
        ingest(data, tmp_path, "refused", policies={"label_conflict": "refuse"})


def test_near_copies_are_kept_on_one_side(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", per_class=40)
    alone = ingest(data, tmp_path, "alone", duplicate_distance=-1).splits()
    for index in range(10):
        original = data / "cats" / f"{index:03}.jpg"
        (data / "cats" / f"small{index}.jpg").write_bytes(resaved(original, 70, 0.8))
        (data / "cats" / f"poor{index}.jpg").write_bytes(resaved(original, 40))
    unaware = ingest(data, tmp_path, "unaware", duplicate_distance=-1).splits()
    run = ingest(data, tmp_path)
    splits = run.splits()
    triples = [(f"cats/{i:03}.jpg", f"cats/small{i}.jpg", f"cats/poor{i}.jpg") for i in range(10)]
    assert any(len({unaware[key] for key in triple}) > 1 for triple in triples)
    assert all(len({splits[key] for key in triple}) == 1 for triple in triples)
    bound = {key for triple in triples for key in triple}
    assert {key: split for key, split in splits.items() if key not in bound} == {k: v for k, v in alone.items() if k not in bound}
    (sheet,) = run.record.pictures
    stored = tmp_path / "run" / "store" / "runs" / "r" / "ingest" / sheet.file
    with Image.open(io.BytesIO(stored.read_bytes())) as image:
        assert image.width > 400
    assert "20 pairs" in sheet.caption


def test_near_copies_in_train_of_explicit_splits_are_dropped_and_named(tmp_path: Path) -> None:
    data = split_folders(tmp_path / "data")
    (data / "train" / "cats" / "leak.jpg").write_bytes(resaved(data / "test" / "cats" / "001.jpg"))
    (data / "train" / "dogs" / "leak.jpg").write_bytes(resaved(data / "validation" / "dogs" / "001.jpg"))
    run = ingest(data, tmp_path)
    assert {f.key: f.detail for f in run.of_kind("near_duplicate")} == {
        "train/cats/leak.jpg": "in train, looks like test/cats/001.jpg in test",
        "train/dogs/leak.jpg": "in train, looks like validation/dogs/001.jpg in validation",
    }
    assert len([key for key, split in run.splits().items() if split == "test"]) == 12


def test_pictures_that_are_alike_by_nature_are_split_with_a_warning(tmp_path: Path) -> None:
    """Where a class is one near-duplicate group, refusing to split it would leave nothing to train or nothing to test."""
    data = class_folders(tmp_path / "data")
    scene = picture(77, (64, 64))
    (data / "lamps").mkdir()
    for index in range(12):
        frame = scene.copy()
        ImageDraw.Draw(frame).point((index, index), "white")
        (data / "lamps" / f"{index}.png").write_bytes(encoded(frame, "PNG"))
    run = ingest(data, tmp_path)
    assert all(run.examples.splits[split].per_class["lamps"] for split in ("train", "validation", "test"))
    assert any("lamps" in warning and "flatter" in warning for warning in run.record.warnings)


@pytest.mark.parametrize("change", ["quality", "smaller", "larger", "lighter", "darker", "png", "blur-free crop"])
def test_looks_survive_what_copying_does(change: str) -> None:
    image = picture(5, (320, 240))
    width, height = image.size
    changed = {
        "quality": lambda: Image.open(io.BytesIO(encoded(image, "JPEG", quality=25))),
        "smaller": lambda: image.resize((160, 120)),
        "larger": lambda: image.resize((800, 600)),
        "lighter": lambda: ImageEnhance.Brightness(image).enhance(1.1),
        "darker": lambda: ImageEnhance.Brightness(image).enhance(0.85),
        "png": lambda: Image.open(io.BytesIO(encoded(image, "PNG"))),
        "blur-free crop": lambda: image.crop((1, 1, width - 1, height - 1)),
    }[change]()
    assert len(found([image, changed, picture(6, (320, 240))], 20)) == 1


def found(images: list[Image.Image], distance: int) -> list[list[int]]:
    return near_pairs(looks([thumbnail(image) for image in images]), distance).tolist()


def test_colour_and_flat_pictures_are_told_apart() -> None:
    def disc(colour: str) -> Image.Image:
        image = Image.new("RGB", (64, 64), "gray")
        ImageDraw.Draw(image).ellipse((16, 16, 48, 48), colour)
        return image

    assert found([disc("#ff4040"), disc("#40ff40"), disc("#ffff40")], 31) == []
    assert found([Image.new("RGB", (64, 64), colour) for colour in ("red", "lime", "blue", "#fe0000")], 31) == []


def components(pairs: list[list[int]], size: int) -> set[frozenset[int]]:
    groups = {index: {index} for index in range(size)}
    for left, right in pairs:
        merged = groups[left] | groups[right]
        groups.update(dict.fromkeys(merged, merged))
    return {frozenset(group) for group in groups.values()}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 31), st.integers(0, 2**32 - 1))
def test_search_connects_exactly_what_comparing_all_connects(distance: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = np.zeros((60, LOOK_BYTES), np.uint8)
    found[:, :32] = rng.integers(0, 256, (60, 32)) if seed % 3 else 0
    for copy in range(30, 60):
        found[copy] = found[copy - 30]
        for bit in rng.choice(256, rng.integers(0, 40), replace=False):
            found[copy, bit // 8] ^= np.uint8(1 << (bit % 8))
    words = np.ascontiguousarray(found[:, :32]).view(np.uint64)
    all_distances = np.bitwise_count(words[:, None] ^ words[None]).sum(-1)
    near = np.argwhere(np.triu(all_distances <= distance, 1)).tolist()
    pairs = near_pairs(found, distance).tolist()
    assert components(pairs, 60) == components(near, 60)
    assert {tuple(pair) for pair in pairs} <= {tuple(pair) for pair in near}


@pytest.mark.parametrize("distance", [0, 9, 24, 31])
@pytest.mark.parametrize("smooth", [False, True])
def test_both_ways_to_search_give_the_same_pairs(distance: int, smooth: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of up to five; smooth hashes have so many candidates that they come in several chunks."""
    rng = np.random.default_rng(distance)
    found = np.zeros((900, LOOK_BYTES), np.uint8)
    found[:, :4] = rng.integers(0, 256, (900, 4))
    found[:, 4:32] = 0 if smooth else rng.integers(0, 256, (900, 28))
    copies = rng.permutation(900)[:400]
    found[copies] = found[copies % 180]
    found[copies, rng.integers(0, 32, 400)] ^= rng.choice(np.array([0, 1, 16, 64], np.uint8), 400)
    all_with_all = near_pairs(found, distance).tolist()
    assert len(all_with_all) > 20
    monkeypatch.setattr("components.ingest.near._ALL_WITH_ALL", 0)
    monkeypatch.setattr("components.ingest.near._MATCH_COST", 0)
    assert near_pairs(found, distance).tolist() == all_with_all


def test_many_smooth_pictures_are_quick() -> None:
    """Their bands are zero or alike: by bands alone, this took minutes."""
    rng = np.random.default_rng(2)
    found = rng.integers(0, 256, (12_000, LOOK_BYTES), dtype=np.uint8)
    found[:, :32].reshape(-1, 16, 2)[:, :, 1] = 0
    found[:, 16:32] = 0
    found[11_999] = found[5]
    assert near_pairs(found, 3).tolist() == [[5, 11_999]]


def test_search_is_far_from_quadratic() -> None:
    """All pairs of 40,000 pictures would be 800 million comparisons and 200 GB at once; this must fit a test."""
    found = np.random.default_rng(1).integers(0, 256, (40_000, LOOK_BYTES), dtype=np.uint8)
    found[39_999] = found[0]
    assert near_pairs(found, 15).tolist() == [[0, 39_999]]


def test_thousands_of_like_pictures_cost_little() -> None:
    found = np.zeros((2_000, LOOK_BYTES), np.uint8)
    found[:, 0] = np.arange(2_000) % 4
    assert len(near_pairs(found, 15)) == 1_999


def test_one_picture_resaved_under_another_label_is_named_and_kept(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data")
    (data / "dogs" / "odd.jpg").write_bytes(resaved(data / "cats" / "003.jpg"))
    run = ingest(data, tmp_path)
    assert {f.action for f in run.of_kind("near_label_conflict")} == {"kept"}
    assert {"dogs/odd.jpg", "cats/003.jpg"} <= run.splits().keys()
