"""A source scanned in shards by several pods: what a shard leaves in the store, and the scan that is made of all of them.

What takes long (reading, decoding, scaling, hashing) is done by the shards; what needs all images at once (duplicates, splits, the
digest) by the step itself. The result is that of one scan of the whole, whoever made which piece.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from components.core.errors import DataError
from components.core.record import StepRecord
from components.core.settings import section
from components.core.shards import Pieces, Shard, all_shards
from components.core.stores import Store
from components.ingest.entries import Entry
from components.ingest.items import Problem, Source
from components.ingest.scan import Say, Scan, scan_source
from components.ingest.settings import IngestSettings
from components.ingest.source import open_source
from components.ingest.spool import Spool

SOURCE = ("components.ingest", "components.core.examples")
_IMAGES, _ENTRIES, _SCAN = "images.bin", "entries.jsonl", "scan.json"


@dataclass(frozen=True)
class Asked:
    """What is ingested, in a run: an address, how, and what tells whether it changed."""

    run_id: str
    data: str
    settings: IngestSettings
    fingerprint: object
    """Changes when what lies there does; None: that can't be told, and no result is kept beyond the run."""
    listing: object
    """Changes when items come or go; None: then there are no shards."""

    def inputs(self) -> dict[str, Any]:
        """All that a result depends on, as JSON."""
        how = self.settings.model_dump(mode="json", exclude={"workers", "cache"})
        return {"data": self.data, "files": self.fingerprint, "settings": how}

    def shard_inputs(self, shard: Shard) -> dict[str, Any]:
        """The same, of one shard. Where content has no fingerprint (a bucket), pieces are of this run, and of this listing."""
        files = self.fingerprint if self.fingerprint is not None else {"run": self.run_id, "listing": self.listing}
        return {**self.inputs(), "files": files, "shard": str(shard)}


def asked(source: Source, run_id: str, data: str, settings: IngestSettings) -> Asked:
    """What an opened source is asked for."""
    return Asked(run_id, data, settings, source.fingerprint, source.listing)


def scan_shard(record: StepRecord, shard: Shard, *, data: str, settings: str) -> None:
    """Leave the shard's piece in the store for `ingest_data`. Raises what opening the data raises."""
    if shard.count == 1:
        record.note("one shard: ingest reads the data itself")
        return
    chosen = section(settings, "ingest", IngestSettings)
    with open_source(data, chosen, record.say) as source, tempfile.TemporaryDirectory(prefix="dual-piece-") as folder:
        inputs = asked(source, record.run_id, data, chosen).shard_inputs(shard)

        def build(target: Path) -> None:
            write_piece(source, chosen, shard, target, record.say)

        found = Pieces(record.store, "ingest", SOURCE).take(inputs, Path(folder), build)
    record.note(f"shard {shard}: {'was in the store already' if found else 'scanned'}")


def gather(store: Store, what: Asked, count: int, spool: Spool, say: Say) -> Scan:
    """The scan of the whole out of `count` pieces; those that are missing are made here."""
    whole = Scan()
    pieces = Pieces(store, "ingest", SOURCE)
    for shard in all_shards(count):

        def build(target: Path, shard: Shard = shard) -> None:
            say(f"shard {shard} is missing: scanned here")
            with open_source(what.data, what.settings, say) as source:
                write_piece(source, what.settings, shard, target, say)

        with tempfile.TemporaryDirectory(prefix="dual-piece-") as folder:
            pieces.take(what.shard_inputs(shard), Path(folder), build)
            _add_piece(whole, Path(folder), spool)
        say(f"shard {shard}: {whole.read:,} images so far")
    return whole


def drop_pieces(store: Store, what: Asked, count: int) -> None:
    """Remove the pieces, when the result that they were for is kept."""
    for shard in all_shards(count):
        Pieces(store, "ingest", SOURCE).drop(what.shard_inputs(shard))


def write_piece(source: Source, settings: IngestSettings, shard: Shard, folder: Path, say: Say) -> None:
    """Scan the shard of a source into a folder: images, what is known of each, counts and problems."""
    with (folder / _IMAGES).open("w+b") as file:
        scan = scan_source(source, settings, Spool(cast("BinaryIO", file)), say, shard)
    with (folder / _ENTRIES).open("w") as file:
        for row in range(len(scan.entries)):
            file.write(f"{json.dumps(_as_json(scan.entries[row]))}\n")
    told = {
        "read": scan.read,
        "scaled": scan.scaled,
        "labels": list(scan.labels.items()),
        "problems": [[problem.kind, problem.key, problem.detail, problem.action] for problem in scan.problems],
    }
    (folder / _SCAN).write_text(json.dumps(told))


def _as_json(entry: Entry) -> list[Any]:
    return [part.hex() if isinstance(part, bytes) else part for part in astuple(entry)]


def _add_piece(whole: Scan, folder: Path, spool: Spool) -> None:
    """Append a piece to the scan; its images to the spool."""
    told: Mapping[str, Any] = json.loads((folder / _SCAN).read_text())
    start, size = spool.add_file(folder / _IMAGES), (folder / _IMAGES).stat().st_size
    for entry in _entries(folder / _ENTRIES, size):
        entry.offset += start
        whole.entries.add(entry)
    whole.read += int(told["read"])
    whole.scaled += int(told["scaled"])
    whole.labels.update(Counter(dict(told["labels"])))
    whole.problems += [Problem(*problem) for problem in told["problems"]]


def _entries(path: Path, size: int) -> Iterator[Entry]:
    with path.open() as file:
        for line in file:
            key, label, split, slices, original, stored, look, *rest = json.loads(line)
            entry = Entry(key, label, split, slices, bytes.fromhex(original), bytes.fromhex(stored), bytes.fromhex(look), *rest)
            if not 0 <= entry.offset <= entry.offset + entry.length <= size:
                raise DataError(f"names bytes of {entry.key} that are not in it", where=str(path), fix="Delete the piece in the store")
            yield entry
