"""However many shards there are, and whichever of them are missing: the examples are those of one scan of the whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.core.digest import sha256_tree
from components.core.errors import UsageError
from components.core.record import open_step
from components.core.run_settings import write_settings
from components.core.shards import Pieces, Shard, ShardSettings, all_shards, parse_shard, shard_count
from components.core.stores import open_store
from components.plan_shards.plan import plan_shards
from tests.shards.sharded_ingest import leave_piece, merge, shown, troubled_folders
from tests.unit.ingest_runs import class_folders, encoded, ingest, picture
from tests.unit.test_ingest_sources import records, rows_of, write_csv

COUNTS = (2, 3, 7)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return troubled_folders(tmp_path_factory.mktemp("data") / "images")


def pieces(work: Path) -> list[str]:
    return list(open_store(str(work / "store")).list("cache/ingest/pieces/"))


@pytest.mark.parametrize("count", COUNTS)
def test_examples_digest_and_record_are_those_of_one_scan(tmp_path: Path, data: Path, count: int) -> None:
    whole = ingest(data, tmp_path, "whole", shorter_side=64)
    for number in reversed(range(count)):
        leave_piece(data, tmp_path / "shards", number, count, shorter_side=64)
    assert len(pieces(tmp_path / "shards")) == 4 * count
    run = merge(data, tmp_path / "shards", count, shorter_side=64)
    assert sha256_tree(run.root) == sha256_tree(whole.root)
    assert run.examples.digest == whole.examples.digest
    assert {finding.kind for finding in run.ingested.findings} >= {"duplicate", "not_an_image", "no_label", "empty_class", "label_conflict"}
    assert shown(run.record) == shown(whole.record)
    assert pieces(tmp_path / "shards") == []


def test_missing_and_damaged_pieces_are_made_by_the_merge(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = ingest(data, tmp_path, "whole")
    work = tmp_path / "shards"
    for number in (0, 2, 3):
        leave_piece(data, work, number, 4)
    store, broken = open_store(str(work / "store")), set[str]()
    for name in pieces(work):
        folder, _, file = name.rpartition("/")
        if file == "images.bin" and not broken:
            broken.add(folder)
            store.put(name, store.get(name).data[:-1] + b"x")
        elif file == "entries.jsonl" and len(broken) == 1 and folder not in broken:
            broken.add(folder)
            store.delete(name)
    capsys.readouterr()
    assert sha256_tree(merge(data, work, 4).root) == sha256_tree(whole.root)
    assert capsys.readouterr().out.count("is missing: scanned here") == 3


def test_a_piece_of_other_data_or_settings_is_not_taken(tmp_path: Path) -> None:
    data, work = class_folders(tmp_path / "data"), tmp_path / "shards"
    for number in range(2):
        leave_piece(data, work, number, 2)
    (data / "dogs" / "new.jpg").write_bytes((data / "cats" / "0.jpg").read_bytes() if (data / "cats" / "0.jpg").exists() else b"x")
    assert sha256_tree(merge(data, work, 2, jpeg_quality=60).root) == sha256_tree(ingest(data, tmp_path, "whole", jpeg_quality=60).root)


def test_a_piece_that_names_a_file_elsewhere_is_made_anew_and_nothing_is_written_there(tmp_path: Path) -> None:
    pieces = Pieces(open_store(str(tmp_path / "store")), "ingest", ("components.ingest",))
    (folder := tmp_path / "folder").mkdir()

    def build(target: Path) -> None:
        (target / "good.bin").write_text("good")

    pieces.take({"a": 1}, folder, build)
    (mark,) = [each for each in pieces.store.list("cache/") if each.endswith("piece.json")]
    outside = tmp_path / "outside.bin"
    pieces.store.put(f"{mark.removesuffix('/piece.json')}{outside}", b"good")
    pieces.store.put(mark, pieces.store.get(mark).data.replace(b"good.bin", str(outside).encode()))
    assert not pieces.take({"a": 1}, folder, build)
    assert [path.name for path in folder.iterdir()] == ["good.bin"]
    assert not outside.exists()


def test_tables_and_records_whose_length_is_unknown(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data")
    table = write_csv(tmp_path / "table.csv", [*rows_of(data), *rows_of(data)[:5], ["missing.jpg", "cats"], ["", "dogs"]])
    (packed := tmp_path / "images.tfrecord").write_bytes(records(data))
    for name, source in (("table", table), ("packed", packed)):
        for number in range(3):
            leave_piece(source, tmp_path / name, number, 3)
        assert sha256_tree(merge(source, tmp_path / name, 3).root) == sha256_tree(ingest(source, tmp_path, f"{name}-whole").root)


def planned(work: Path, data: object, images: int, **ingest_settings: object) -> tuple[int, int]:
    run_id = f"{images}-{len(ingest_settings)}-{Path(str(data)).name}"
    settings = json.dumps({"ingest": ingest_settings, "sharding": {"images": images}})
    write_settings(open_store(str(work / "store")), run_id, settings)
    with open_step("plan_shards", store=str(work / "store"), run_id=run_id) as record:
        return plan_shards(record, data=str(data))


def test_a_bucket_is_scanned_in_shards_of_this_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = class_folders(tmp_path / "data")
    monkeypatch.setattr("components.ingest.source.open_store", lambda _: open_store(str(data)))
    whole = ingest("gs://bucket/images", tmp_path, "whole")
    assert planned(tmp_path, "gs://bucket/images", images=10)[0] == 3
    work = tmp_path / "shards"
    for number in range(3):
        leave_piece("gs://bucket/images", work, number, 3)
    capsys.readouterr()
    run = merge("gs://bucket/images", work, 3)
    assert "is missing" not in capsys.readouterr().out
    assert sha256_tree(run.root) == sha256_tree(whole.root)
    assert pieces(work) == []
    for number in range(3):
        leave_piece("gs://bucket/images", work, number, 3)
    # An image that came between moves the borders of the shards: what was read before it is not taken.
    (data / "cats" / "000-new.jpg").write_bytes(encoded(picture(4711)))
    later = merge("gs://bucket/images", work, 3)
    assert capsys.readouterr().out.count("is missing") == 3
    assert sha256_tree(later.root) == sha256_tree(ingest("gs://bucket/images", tmp_path, "later").root)


def test_drawn_images_are_the_same_data_wherever_they_were_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = {"drawn": {"images_per_class": 6, "size": 32}}
    for number in range(2):
        leave_piece("drawn", tmp_path / "work", number, 2, **few, cache=str(tmp_path / f"pod-{number}"))
    capsys.readouterr()
    merge("drawn", tmp_path / "work", 2, **few, cache=str(tmp_path / "pod-merge"))
    assert "is missing" not in capsys.readouterr().out


def test_the_count_follows_the_size(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", per_class=12)
    assert planned(tmp_path, data, images=10) == (3, 1)
    assert planned(tmp_path, data, images=2, test_fraction=0.3) == (12, 4)
    assert planned(tmp_path, data, images=1000) == (1, 1)


def test_unchanged_data_and_data_of_unknown_length_are_one_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = class_folders(tmp_path / "data")
    merge(data, tmp_path, 1)
    assert planned(tmp_path, data, images=10)[0] == 1
    (packed := tmp_path / "images.tfrecord").write_bytes(records(data))
    assert planned(tmp_path, packed, images=10) == (1, 1)
    assert "the data is unchanged" in (said := capsys.readouterr().out)
    assert "only reading all of" in said


def test_shards_cover_everything_once() -> None:
    for count in (1, 2, 3, 7, 64):
        for total in (0, 1, 6, 7, 8, 1000):
            ends = [shard.of(total) for shard in all_shards(count)]
            assert [i for first, end in ends for i in range(first, end)] == list(range(total))
            assert max(end - first for first, end in ends) - min(end - first for first, end in ends) <= 1
    settings = ShardSettings(images=100, most=8)
    assert [shard_count(images, settings) for images in (0, 1, 100, 101, 800, 801)] == [1, 1, 1, 2, 8, 8]
    assert parse_shard("3 of 7") == Shard(3, 7)
    assert parse_shard(str(Shard(7, 7))) == Shard(7, 7)


@pytest.mark.parametrize("text", ["", "0 of 3", "4 of 3", "1/3", "1 of", "a of b", "1 of 3 "])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no shard"):
        parse_shard(text)


# A fresh interpreter that forks: one child per write of a shard and of the merge, killed there, and the same again.
_HARNESS = """
import shutil, signal, sys
from pathlib import Path
from tests.kill.at_write import ends
from tests.shards.sharded_ingest import leave_piece, merge
from components.core.digest import sha256_tree

work, data = Path(sys.argv[1]), sys.argv[2]
def shard(number):
    return lambda: leave_piece(data, work / "run", number, 2, workers=1)

def whole():
    return merge(data, work / "run", 2, workers=1)

for number in range(2):
    leave_piece(data, work / "warm", number, 2, workers=1)
merge(data, work / "warm", 2, workers=1)
for act in ("shard", "merge"):
    kill_at = 1
    while True:
        shutil.rmtree(work / "run", ignore_errors=True)
        assert ends(0, shard(0)) == 0
        if act == "merge":
            assert ends(0, shard(1)) == 0
        first = ends(kill_at, shard(1) if act == "shard" else whole)
        if first == 0:
            break
        assert first == -signal.SIGKILL, first
        # A shard that died is not always started again: the merge does what is missing.
        if act == "shard" and kill_at % 2:
            assert ends(0, shard(1)) == 0
        assert ends(0, whole) == 0
        left = sorted(p.name for p in (work / "run" / "store" / "cache" / "ingest").rglob("*") if p.name == "piece.json")
        print(act, kill_at, sha256_tree(work / "run" / "examples"), *left, flush=True)
        kill_at += 1
"""


def test_killed_at_every_write_of_a_shard_and_of_the_merge(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", per_class=4)
    expected = sha256_tree(ingest(data, tmp_path, "expected").root)
    command = [sys.executable, "-c", _HARNESS, str(tmp_path / "killed"), str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith(("shard ", "merge "))]
    assert sum(line[0] == "shard" for line in lines) > 10
    assert sum(line[0] == "merge" for line in lines) > 40
    assert [line for line in lines if line[2:] != [expected]] == []
