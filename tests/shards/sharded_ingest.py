"""Ingest in shards, as the steps of a compiled pipeline would do it; and data that has one of every trouble."""

import json
from pathlib import Path
from typing import Any

from components.core.record import Record, open_step
from components.core.shards import all_shards
from components.ingest.ingest import ingest_data
from components.ingest.pieces import scan_shard
from tests.unit.ingest_runs import Run, class_folders, encoded, picture

STEP = "ingest"


def troubled_folders(root: Path, per_class: int = 14) -> Path:
    """Class folders with copies, near-copies, conflicts, strays, an empty class and what can't be decoded."""
    data = class_folders(root, per_class=per_class)
    (data / "cats" / "bad.jpg").write_bytes(b"no picture")
    (data / "dogs" / "cut.jpg").write_bytes(encoded(picture(5))[:200])
    (data / "dogs" / "near.jpg").write_bytes(encoded(picture(1000), quality=50))
    (data / "dogs" / "large.png").write_bytes(encoded(picture(77, (900, 700)), "PNG"))
    (data / "cats" / "copy.jpg").write_bytes((data / "cats" / "003.jpg").read_bytes() if (data / "cats" / "003.jpg").exists() else b"")
    (data / "stray.jpg").write_bytes(encoded(picture(9)))
    (data / "empty").mkdir()
    first = next(iter(sorted((data / "cats").glob("*.jpg"))))
    (data / "dogs" / "zz-conflict.jpg").write_bytes(first.read_bytes())
    return data


def leave_piece(data: object, work: Path, number: int, count: int, **settings: Any) -> None:
    """What the step ingest_shard does."""
    shard = all_shards(count)[number]
    with opened(work, shard.title("ingest_shard")) as record:
        scan_shard(record, shard, data=str(data), settings=json.dumps({"ingest": settings}))


def merge(data: object, work: Path, count: int, **settings: Any) -> Run:
    """What the step ingest does after them."""
    root = work / "examples"
    with opened(work, STEP) as record:
        ingest_data(record, data=str(data), settings=json.dumps({"ingest": settings}), output=root, shards=count)
    return Run(root, record.record)


def opened(work: Path, step: str) -> Any:
    """A step's record in the store of this work."""
    return open_step(step, store=str(work / "store"), run_id="r")


def shown(record: Record) -> Any:
    """What a record tells, apart from when and how it came to be."""
    return record.model_dump(exclude={"started", "seconds", "machine", "cached"})
