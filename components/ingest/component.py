"""ingest: images from anywhere become sharded, split, deduplicated examples."""

from kfp import dsl

from components.core.step import step


@step(image="dual-trainer")
def ingest(data: str, settings: str, store: str, run_id: str, examples: dsl.Output[dsl.Dataset], view: dsl.Output[dsl.HTML]) -> None:
    """Read labelled images from a folder, CSV, archive or TFRecords, and write examples with stable splits."""
    from pathlib import Path

    from components.core.record import open_step
    from components.ingest.ingest import ingest_data

    with open_step("ingest", store=store, run_id=run_id, view=view.path) as record:
        ingest_data(record, data=data, settings=settings, output=Path(examples.path))
