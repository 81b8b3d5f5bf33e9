"""What the scan keeps between reading and writing: rows of facts, bytes in the spool, names of files; and that it stays small."""

import os
import tempfile
import tracemalloc
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.examples import SPLITS, Split
from components.ingest.entries import Entries, Entry
from components.ingest.hashing import LOOK_BYTES, looks, thumbnail
from components.ingest.spool import Spool
from components.ingest.trees import LocalTree, read_local
from tests.unit.ingest_runs import class_folders, encoded, ingest, picture

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
DIGEST = st.binary(min_size=32, max_size=32)


def entry(key: str, original: bytes, stored: bytes | None = None, label: str = "cats", split: Split | None = None) -> Entry:
    return Entry(key, label, split, '{"a": "é"}', original, stored or original, bytes(LOOK_BYTES), 1 << 40, 12, "jpeg", 70_000, 3)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, st.sampled_from([None, *SPLITS]), DIGEST, DIGEST | st.none()), max_size=8))
def test_entries_come_back_as_they_were(facts: list[tuple[str, str, Split | None, bytes, bytes | None]]) -> None:
    given = [entry(key, original, stored, label, split) for key, label, split, original, stored in facts]
    entries = Entries()
    for each in given:
        entries.add(each)
    assert [entries[row] for row in range(len(entries))] == given
    rows = np.arange(len(given))
    assert [entries.key(row) for row in entries.by_key(rows)] == sorted(each.key for each in given)
    digests = sorted({each.original for each in given})
    assert entries.digest_ranks().tolist() == [digests.index(each.original) for each in given]
    for split in SPLITS:
        assert [given[row].split for row in entries.in_split(rows, split)] == [s for *_, s, _, _ in facts if s == split]


def test_a_changed_split_is_in_the_entry() -> None:
    entries = Entries()
    entries.add(entry("a", bytes(32)))
    entries.table["split"][0] = SPLITS.index("test")
    assert entries[0].split == "test"
    assert dict(entries.label_counts(np.array([0]))) == {"cats": 1}


def test_an_entry_takes_little_memory() -> None:
    """As objects it would be some thousand bytes, and a million images a gigabyte."""
    tracemalloc.start()
    entries = Entries()
    for number in range(5_000):
        entries.add(entry(f"class/folder/{number:020}.jpg", sha256(b"%d" % number).digest()))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept / 5_000 < 260


@pytest.mark.parametrize("limit", [1, 7, 1 << 20])
def test_spool_gives_back_every_image_also_after_partial_writes(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, one = os.pwritev, os.pwrite
    monkeypatch.setattr("os.pwritev", lambda handle, data, at: whole(handle, [b"".join(data)[:limit]], at))
    monkeypatch.setattr("os.pwrite", lambda handle, data, at: one(handle, data[:limit], at))
    images = [bytes([number % 256]) * (number % 50) for number in range(3_000)]
    with tempfile.TemporaryFile() as file:
        spool = Spool(cast("BinaryIO", file))
        offsets = spool.add(images[:10]) + spool.add([]) + spool.add(images[10:])
        assert [spool.read(offset, len(image)) for offset, image in zip(offsets, images, strict=True)] == images


def test_names_are_listed_as_often_as_wanted_and_files_read_whole(tmp_path: Path) -> None:
    odd = os.fsdecode(b"b/odd\xff.jpg")
    for name in ("b/z.jpg", "a/ä/é.jpg", odd, "top.jpg", "b/.hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode("utf-8", "surrogateescape") * 9_000)
    tree = LocalTree(tmp_path)
    assert list(tree.names()) == list(tree.names()) == ["a/ä/é.jpg", odd, "b/z.jpg", "top.jpg"]
    assert tree.folders() == ["a", "a/ä", "b"]
    assert tree.read(odd, 1 << 20) == b"b/odd\xff.jpg" * 9_000


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_files_that_say_they_are_empty_are_read_too() -> None:
    assert read_local("/proc/self/status", 1 << 20).startswith(b"Name:")


def test_keys_stay_distinct_where_two_names_are_written_alike(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data")
    (data / "cats" / "odd\\xff.jpg").write_bytes(encoded(picture(50)))
    (data / "cats" / os.fsdecode(b"odd\xff.jpg")).write_bytes(encoded(picture(51)))
    assert {key for key in ingest(data, tmp_path).splits() if "odd" in key} == {"cats/odd\\xff.jpg", "cats/odd\\xff.jpg#2"}


def test_a_look_does_not_depend_on_what_it_is_computed_with() -> None:
    """Batches differ from run to run."""
    thumbs = [thumbnail(picture(seed, (90, 70))) for seed in range(40)]
    alone = np.concatenate([looks([thumb]) for thumb in thumbs])
    for size in (2, 7, 40):
        assert (np.concatenate([looks(thumbs[i : i + size]) for i in range(0, 40, size)]) == alone).all()
