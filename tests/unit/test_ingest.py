"""What ingest promises as a whole: layout, digest, splits, cache, record, errors."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from components.core.digest import sha256_bytes, sha256_json, sha256_tree
from components.core.errors import DataError, UsageError
from components.core.examples import MANIFEST, SPLITS
from components.core.record import open_step, read_records
from components.core.stores import open_store
from components.ingest.ingest import check_data, ingest_data
from tests.unit.ingest_runs import class_folders, encoded, ingest, picture, text


def test_class_folders_become_examples(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", per_class=20)
    run = ingest(data, tmp_path)
    examples = run.examples
    assert examples.labels == ["cats", "dogs"]
    assert sum(split.count for split in examples.splits.values()) == 40
    assert all(examples.splits[split].per_class[label] >= 1 for split in SPLITS for label in examples.labels)
    rows = [row for _, row in run.rows()]
    assert {text(row["image/key"]) for row in rows} == {p.relative_to(data).as_posix() for p in data.rglob("*.jpg")}
    for row in rows:
        label = text(row["image/key"]).split("/")[0]
        assert (text(row["image/class/text"]), row["image/label"]) == (label, examples.labels.index(label))
        # Plain pictures that are small enough pass through byte for byte.
        assert row["image/encoded"] == (data / text(row["image/key"])).read_bytes()
        assert text(row["image/format"]) == "jpeg"
        assert (row["image/height"], row["image/width"]) == (40, 48)


def test_digest_is_the_contract_s(tmp_path: Path) -> None:
    run = ingest(class_folders(tmp_path / "data"), tmp_path)
    facts = [
        [split, text(r["image/key"]), r["image/label"], sha256_bytes(bytes(r["image/encoded"])), text(r["image/slices"])]  # type: ignore[arg-type]
        for split, r in run.rows()
    ]
    assert run.examples.digest == sha256_json(sorted(facts))


def test_digest_and_bytes_do_not_depend_on_workers_time_or_place(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data")
    first = ingest(data, tmp_path, "first", workers=1)
    copy = tmp_path / "elsewhere"
    for path in sorted(data.rglob("*.jpg"), reverse=True):
        (copy / path.relative_to(data)).parent.mkdir(parents=True, exist_ok=True)
        (copy / path.relative_to(data)).write_bytes(path.read_bytes())
    second = ingest(copy, tmp_path, "second", workers=4)
    assert first.examples.digest == second.examples.digest
    assert sha256_tree(first.root / "train") == sha256_tree(second.root / "train")


def test_digest_does_not_depend_on_sharding_but_on_content(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data")
    whole = ingest(data, tmp_path, "whole")
    sharded = ingest(data, tmp_path, "sharded", examples_per_shard=3)
    assert len(sharded.examples.splits["train"].shards) > 3
    assert sharded.examples.digest == whole.examples.digest
    assert sharded.splits() == whole.splits()
    (data / "cats" / "000.jpg").write_bytes(encoded(picture(77)))
    assert ingest(data, tmp_path, "changed").examples.digest != whole.examples.digest


def test_splits_stay_when_images_come_and_go(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", per_class=40, seed=50_000)
    before = ingest(data, tmp_path, "before").splits()
    class_folders(tmp_path / "data", per_class=70, seed=50_000)
    (data / "dogs" / "001.jpg").unlink()
    (data / "cats" / "002.jpg").rename(data / "cats" / "renamed.jpg")
    after = ingest(data, tmp_path, "after").splits()
    assert after["cats/renamed.jpg"] == before["cats/002.jpg"]
    kept = before.keys() & after.keys()
    assert len(kept) == 78
    assert {key: after[key] for key in kept} == {key: before[key] for key in kept}


def test_fractions_are_met(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", per_class=200)
    splits = ingest(data, tmp_path, validation_fraction=0.2, test_fraction=0.3, duplicate_distance=-1).examples.splits
    assert splits["test"].count == pytest.approx(120, abs=30)
    assert splits["validation"].count == pytest.approx(80, abs=26)


def test_small_classes_get_an_image_in_every_split(tmp_path: Path) -> None:
    run = ingest(class_folders(tmp_path / "data", per_class=3, classes=("a", "b", "c", "d")), tmp_path)
    assert all(set(run.examples.splits[split].per_class.values()) == {1} for split in SPLITS)


def test_split_folders_are_kept(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val", "test")):
        class_folders(tmp_path / "data" / split, per_class=4, seed=100 * number)
    (tmp_path / "data" / "manifest.csv").write_text("this lies beside and is nobody's business\n")
    run = ingest(tmp_path / "data", tmp_path)
    assert {key.split("/")[0].replace("val", "validation"): split for key, split in run.splits().items()} == {
        split: split for split in SPLITS
    }
    assert [run.examples.splits[split].count for split in SPLITS] == [8, 8, 8]
    assert run.ingested.findings == []


def test_missing_split_folders_are_taken_from_train(tmp_path: Path) -> None:
    class_folders(tmp_path / "data" / "train", per_class=30)
    class_folders(tmp_path / "data" / "test", per_class=5, seed=500)
    splits = ingest(tmp_path / "data", tmp_path).splits()
    assert {split for key, split in splits.items() if key.startswith("test/")} == {"test"}
    assert {split for key, split in splits.items() if key.startswith("train/")} == {"train", "validation"}


def test_one_wrapping_folder_is_stepped_into(tmp_path: Path) -> None:
    class_folders(tmp_path / "data" / "flower_photos")
    (tmp_path / "data" / "flower_photos" / "LICENSE.txt").write_text("free")
    run = ingest(tmp_path / "data", tmp_path)
    assert run.examples.labels == ["cats", "dogs"]
    assert "cats/000.jpg" in run.splits()


def test_unchanged_input_comes_from_the_cache_with_its_record(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data")
    (data / "cats" / "bad.jpg").write_bytes(b"no picture")
    store = str(tmp_path / "store")
    digests = []
    for run_id in ("one", "two"):
        with open_step("ingest", store=store, run_id=run_id) as record:
            ingest_data(record, data=str(data), settings="{}", output=tmp_path / run_id)
        digests.append(sha256_tree(tmp_path / run_id))
    first, second = (read_records(open_store(store), run_id)["ingest"] for run_id in ("one", "two"))
    assert digests[0] == digests[1]
    assert (first.cached, second.cached) == (False, True)
    assert second.tables == first.tables
    (data / "cats" / "000.jpg").write_bytes(encoded(picture(99)))
    with open_step("ingest", store=store, run_id="three") as record:
        ingest_data(record, data=str(data), settings="{}", output=tmp_path / "three")
    assert not record.record.cached


def test_leftovers_in_the_output_are_removed(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data")
    leftover = tmp_path / "run" / "examples" / "train" / "shard-00007-of-00009.tfrecord"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    ingest(data, tmp_path)
    assert not leftover.exists()


def test_record_names_counts_and_problems(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data")
    for index in range(30):
        (data / "cats" / f"bad{index:02}.jpg").write_bytes(b"no picture")
    record = ingest(data, tmp_path).record
    counts, problems = record.tables
    assert counts.rows[-1] == ["all", *(sum(int(row[i] or 0) for row in counts.rows[:-1]) for i in range(1, 5))]
    assert problems.rows[0][:3] == ["not an image", "skipped", 30]
    assert "cats/bad00.jpg" in str(problems.rows[0][3])
    assert str(problems.rows[0][3]).endswith("and 10 more")
    assert any("30 not an image skipped" in warning for warning in record.warnings)
    assert record.metrics["left_out"] == 30


def test_check_says_what_ingest_would_do_and_writes_nothing(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data")
    (data / "cats" / "bad.jpg").write_bytes(b"no picture")
    before = sorted(tmp_path.rglob("*"))
    said: list[str] = []
    checked = check_data(str(data), "{}", said.append)
    assert sorted(tmp_path.rglob("*")) == before
    run = ingest(data, tmp_path)
    assert checked == run.ingested
    assert checked.problem_counts() == {"not_an_image": 1}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: None, "no such folder"),
        (lambda root: root.mkdir(), "no class folders"),
        (lambda root: root.write_text("x"), "not a folder"),
        (lambda root: class_folders(root, classes=("only",)), "only one class ('only')"),
        (lambda root: [(root / name).mkdir(parents=True) for name in "ab"], "no usable image"),
        (lambda root: class_folders(root, per_class=1), "no image is left for the"),
    ],
)
def test_data_that_nothing_can_be_learned_from_is_refused(tmp_path: Path, make: object, said: str) -> None:
    assert callable(make)
    make(tmp_path / "data")
    with pytest.raises(DataError, match=said.replace("(", r"\(").replace(")", r"\)")) as caught:
        ingest(tmp_path / "data", tmp_path)
    assert caught.value.exit_code == 4
    assert not (tmp_path / "run" / "examples" / MANIFEST).exists()


@pytest.mark.parametrize("data", ["", "ftp://host/x", "/data/v{VERSION}", "span-{SPAN}"])
def test_bad_addresses_are_usage_errors(tmp_path: Path, data: str) -> None:
    with pytest.raises(UsageError):
        ingest(data, tmp_path)


@pytest.mark.parametrize(
    "settings",
    [{"spans": "newest"}, {"test_fraction": 0.45, "validation_fraction": 0.45}, {"policies": {"truncated": "fix"}}, {"sha256": "abc"}],
)
def test_bad_settings_are_usage_errors(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="ingest"):
        ingest(tmp_path, tmp_path, **settings)


def test_drawn_images_are_marked(tmp_path: Path) -> None:
    run = ingest("drawn", tmp_path, drawn={"images_per_class": 6, "size": 32}, cache=str(tmp_path / "cache"))
    assert run.examples.drawn
    assert len(run.examples.labels) == 5
    assert not run.of_kind("near_duplicate")


def test_real_flowers(shared: Path, tmp_path: Path) -> None:
    run = ingest(shared / "data" / "flowers", tmp_path)
    assert [run.examples.splits[split].count for split in SPLITS] == [1100, 250, 250]
    assert run.examples.problems == {}


def test_output_is_complete_only_with_its_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = class_folders(tmp_path / "data")
    first = ingest(data, tmp_path)
    shutil.rmtree(tmp_path / "run" / "store")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("components.ingest.ingest.write_shards", fail)
    with pytest.raises(OSError, match="disk full"):
        ingest(data, tmp_path)
    assert not (first.root / MANIFEST).exists()
    assert json.loads((tmp_path / "run" / "store" / "runs" / "r" / "ingest" / "record.json").read_text())["status"] == "failed"
