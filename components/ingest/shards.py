"""From a plan to the examples artifact: shards written in parallel, the manifest last."""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from components.core.digest import canonical_json
from components.core.examples import Split, SplitExamples
from components.ingest.plan import Plan
from components.ingest.scan import Entry, Spool
from components.ingest.settings import IngestSettings
from components.ingest.tfrecord import encode_example, frame


def write_shards(plan: Plan, spool: Spool, output: Path, settings: IngestSettings) -> dict[Split, SplitExamples]:
    """Write `<split>/shard-….tfrecord` below `output`, each whole or not at all.

    Order within a split is that of the hash of the key: the same everywhere, and mixed over the classes.
    """
    index = {label: number for number, label in enumerate(plan.labels)}
    jobs: list[tuple[Path, list[Entry]]] = []
    facts: dict[Split, SplitExamples] = {}
    for split, entries in plan.splits.items():
        ordered = sorted(entries, key=lambda entry: sha256(entry.key.encode()).digest())
        parts = [ordered[i : i + settings.examples_per_shard] for i in range(0, len(ordered), settings.examples_per_shard)]
        names = [f"{split}/shard-{number:05d}-of-{len(parts):05d}.tfrecord" for number in range(len(parts))]
        jobs += [(output / name, part) for name, part in zip(names, parts, strict=True)]
        counts = Counter(entry.label for entry in entries)
        facts[split] = SplitExamples(shards=names, count=len(entries), per_class={label: counts[label] for label in plan.labels})
    with ThreadPoolExecutor(settings.workers or os.cpu_count() or 1) as pool:
        list(pool.map(lambda job: _write_shard(job[0], job[1], spool, index), jobs))
    return facts


def _write_shard(path: Path, entries: list[Entry], spool: Spool, index: dict[str, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        for entry in entries:
            file.write(frame(_example(entry, spool.read(entry), index[entry.label])))
    temporary.replace(path)


def _example(entry: Entry, image: bytes, label: int) -> bytes:
    return encode_example(
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
    index = {label: number for number, label in enumerate(plan.labels)}
    digest = sha256(b"[")
    separator = b""
    for split in sorted(plan.splits):
        for entry in sorted(plan.splits[split], key=lambda entry: entry.key):
            fact = [split, entry.key, index[entry.label], entry.stored.hex(), entry.slices]
            digest.update(separator + canonical_json(fact))
            separator = b","
    digest.update(b"]")
    return digest.hexdigest()
