"""From a plan to the examples artifact: shards written in parallel, the manifest last."""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np

from components.core.digest import canonical_json
from components.core.examples import Split, SplitExamples
from components.ingest.entries import Entry, Rows
from components.ingest.plan import Plan
from components.ingest.settings import IngestSettings
from components.ingest.spool import Spool
from components.ingest.tfrecord import framed_example

_WRITE_BYTES = 1 << 18
_FACTS = 256


@contextmanager
def write_shards(plan: Plan, spool: Spool, output: Path, settings: IngestSettings) -> Iterator[dict[Split, SplitExamples]]:
    """Write `<split>/shard-….tfrecord` below `output`, each whole or not at all, while the body of the `with` runs; all are there after it.

    Order within a split is that of the hash of the key: the same everywhere, and mixed over the classes.
    """
    index = {label: number for number, label in enumerate(plan.labels)}
    facts: dict[Split, SplitExamples] = {}
    with ThreadPoolExecutor(settings.workers or os.cpu_count() or 1, thread_name_prefix="write") as pool:
        jobs: list[Future[None]] = []
        for split, rows in plan.splits.items():
            parts = _parts(plan, rows, settings.examples_per_shard)
            names = [f"{split}/shard-{number:05d}-of-{len(parts):05d}.tfrecord" for number in range(len(parts))]
            jobs += [pool.submit(_write_shard, output / name, plan, part, spool, index) for name, part in zip(names, parts, strict=True)]
            facts[split] = SplitExamples(shards=names, count=len(rows), per_class=plan.label_counts(split))
        yield facts
        for job in jobs:
            job.result()


def _parts(plan: Plan, rows: Rows, size: int) -> list[Rows]:
    """The rows of every shard of a split."""
    digests = bytearray()
    for row in rows:
        digests += sha256(plan.entries.key_bytes(row)).digest()
    mixed = rows[np.argsort(np.frombuffer(digests, "S32"))]
    return [mixed[i : i + size] for i in range(0, len(mixed), size)]


def _write_shard(path: Path, plan: Plan, rows: Rows, spool: Spool, index: dict[str, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        for pieces in _batches(plan, rows, spool, index):
            file.write(b"".join(pieces))
    temporary.replace(path)


def _batches(plan: Plan, rows: Rows, spool: Spool, index: dict[str, int]) -> Iterator[list[bytes]]:
    """The pieces of many records at a time, so that small images don't take a system call each."""
    pieces: list[bytes] = []
    size = 0
    for row in rows:
        entry = plan.entries[row]
        pieces += _example(entry, spool.read(entry.offset, entry.length), index[entry.label])
        size += entry.length
        if size >= _WRITE_BYTES:
            yield pieces
            pieces, size = [], 0
    yield pieces


def _example(entry: Entry, image: bytes, label: int) -> list[bytes]:
    return framed_example(
        {
            "image/encoded": image,
            "image/format": entry.format.encode(),
            "image/height": entry.height,
            "image/width": entry.width,
            "image/label": label,
            "image/class/text": entry.label.encode(),
            "image/key": entry.key.encode(),
            "image/sha256": entry.stored.hex().encode(),
            "image/slices": entry.slices.encode(),
        }
    )


def content_digest(plan: Plan) -> str:
    """SHA-256 over the sorted [split, key, label index, sha256 of the stored bytes, slices] of all examples, as canonical JSON.

    The same as `sha256_json(sorted(facts))`, without holding the text of a large data set in memory.
    """
    digest = sha256(b"[")
    separator = b""
    facts = _facts(plan)
    while some := list(islice(facts, _FACTS)):
        digest.update(separator + canonical_json(some)[1:-1])
        separator = b","
    digest.update(b"]")
    return digest.hexdigest()


def _facts(plan: Plan) -> Iterator[tuple[str, str, int, str, str]]:
    index = {label: number for number, label in enumerate(plan.labels)}
    for split in sorted(plan.splits):
        for row in plan.entries.by_key(plan.splits[split]):
            entry = plan.entries[row]
            yield split, entry.key, index[entry.label], entry.stored.hex(), entry.slices
