"""Running ingest on small data, and reading what it wrote, for the tests of ingest."""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.core.examples import SPLITS, Examples, read_examples
from components.core.record import Record, open_step
from components.ingest.ingest import ingest_data
from components.ingest.summary import Finding, Ingested
from components.ingest.tfrecord import Value, decode_example, read_records

Json = Mapping[str, Any]


@dataclass
class Run:
    """What one ingest left behind."""

    root: Path
    record: Record

    @property
    def examples(self) -> Examples:
        return read_examples(self.root)

    @property
    def ingested(self) -> Ingested:
        return Ingested.model_validate_json((self.root / "ingest.json").read_bytes())

    def of_kind(self, kind: str) -> list[Finding]:
        return self.ingested.of_kind(kind)

    def names(self, kind: str) -> list[str]:
        return [finding.key for finding in self.of_kind(kind)]

    def rows(self) -> Iterator[tuple[str, dict[str, Value]]]:
        for split in SPLITS:
            for shard in self.examples.shard_paths(self.root, split):
                with Path(shard).open("rb") as file:
                    yield from ((split, decode_example(data)) for data in read_records(file, shard, 1 << 30))

    def splits(self) -> dict[str, str]:
        return {text(row["image/key"]): split for split, row in self.rows()}

    def row(self, key: str) -> dict[str, Value]:
        return next(row for _, row in self.rows() if text(row["image/key"]) == key)

    def image(self, key: str) -> Image.Image:
        data = self.row(key)["image/encoded"]
        assert isinstance(data, bytes)
        return Image.open(io.BytesIO(data))


def text(value: Value) -> str:
    assert isinstance(value, bytes)
    return value.decode()


def ingest(data: object, work: Path, name: str = "run", **settings: Any) -> Run:
    """Ingest `data` into `work/name/examples`, with a store of its own, so that no cache helps."""
    root = work / name / "examples"
    with open_step("ingest", store=str(work / name / "store"), run_id="r") as record:
        ingest_data(record, data=str(data), settings=json.dumps({"ingest": settings}), output=root)
    return Run(root, record.record)


def picture(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """A smooth random RGB picture; each seed looks different."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def class_folders(root: Path, per_class: int = 12, classes: tuple[str, ...] = ("cats", "dogs"), seed: int = 0) -> Path:
    """`root/<class>/<number>.jpg`, all pictures different."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(per_class):
            (root / name / f"{index:03}.jpg").write_bytes(encoded(picture(seed + 1000 * label + index)))
    return root
