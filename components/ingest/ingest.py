"""ingest as plain functions: `ingest_data` writes examples, `check_data` only says what it would do."""

import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO, cast

from components.core.cache import cached_result
from components.core.examples import MANIFEST, Examples, Split, SplitExamples
from components.core.record import StepRecord
from components.core.settings import section
from components.ingest.items import Source
from components.ingest.pieces import SOURCE, Asked, asked, drop_pieces, gather
from components.ingest.plan import Plan, make_plan
from components.ingest.scan import Say, scan_source
from components.ingest.settings import IngestSettings
from components.ingest.shards import content_digest, write_shards
from components.ingest.source import open_source
from components.ingest.spool import Spool
from components.ingest.summary import Ingested, record_ingested, summarize


def ingest_data(record: StepRecord, *, data: str, settings: str, output: Path, shards: int = 1) -> None:
    """Write the examples artifact of `data` to the folder `output`, and keep counts, problems and pictures in the record.

    Same content and settings: same bytes, from however many shards. Killed at any point and run again: the same result as if nothing
    had happened. Unchanged inputs are served from the store's cache. Raises `DataError` with names for what can't be used.
    """
    chosen = section(settings, "ingest", IngestSettings)
    with open_source(data, chosen, record.say) as source:
        what = asked(source, record.run_id, data, chosen)
        # What a killed attempt left must not stay beside the new shards.
        shutil.rmtree(output, ignore_errors=True)
        if what.fingerprint is None:
            record.note(f"not cached: {data} can't tell whether it changed")
            output.mkdir(parents=True, exist_ok=True)
            _build(record, what, source, output, shards)
        else:
            cached_result(record, output, what.inputs(), SOURCE, lambda folder: _build(record, what, source, folder, shards))
    if shards > 1:
        drop_pieces(record.store, what, shards)


def check_data(data: str, settings: str, say: Say) -> Ingested:
    """What ingest would do with `data`: counts, fixes, omissions; nothing is written. Raises `DataError` where it would."""
    chosen = section(settings, "ingest", IngestSettings)
    with open_source(data, chosen, say) as source:
        scan = scan_source(source, chosen, Spool(None), say)
        return summarize(source, scan, make_plan(source, scan, chosen))


def _build(record: StepRecord, what: Asked, source: Source, output: Path, shards: int) -> None:
    settings = what.settings
    with tempfile.TemporaryFile() as file:
        spool = Spool(cast("BinaryIO", file))
        scan = gather(record.store, what, shards, spool, record.say) if shards > 1 else scan_source(source, settings, spool, record.say)
        plan = make_plan(source, scan, settings)
        ingested = summarize(source, scan, plan)
        with write_shards(plan, spool, output, settings) as splits:
            record_ingested(record, ingested, plan, spool)
            if source.drawn:
                record.warn("the images are drawn by the embedded generator: no figure of this run is about photographs")
            digest = content_digest(plan)
    _describe(output, what.data, source, plan, splits, digest, ingested)


def _describe(
    output: Path, data: str, source: Source, plan: Plan, splits: dict[Split, SplitExamples], digest: str, ingested: Ingested
) -> None:
    examples = Examples(
        labels=plan.labels,
        digest=digest,
        splits=splits,
        slice_columns=source.slice_columns,
        spans=source.spans,
        source=data,
        drawn=source.drawn,
        problems=ingested.problem_counts(),
    )
    _put(output / "ingest.json", ingested.model_dump_json(by_alias=True, indent=1))
    # Last: the artifact exists when its manifest does.
    _put(output / MANIFEST, examples.model_dump_json(by_alias=True, indent=1))


def _put(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text)
    temporary.replace(path)
