"""ingest: images from anywhere become sharded, split, deduplicated examples."""

from typing import List, Optional  # noqa: UP035

from kfp import dsl

from components.core.step import step


@step(image="dual-trainer")
def ingest(
    data: str,
    store: str,
    run_id: str,
    examples: dsl.Output[dsl.Dataset],
    view: dsl.Output[dsl.HTML],
    profile: str = "",
    settings: str = "",
    spans: str = "",
    thresholds: str = "",
    rollout_strategy: str = "",
    rollout_steps: str = "",
    site: str = "",
    accelerator_type: str = "",
    accelerator_count: str = "",
    shards: Optional[List[str]] = None,  # noqa: UP006, UP045 - KFP reads no other spelling
) -> None:
    """Resolve the run's settings; read labelled images from a folder, CSV, archive or TFRecords; write examples with stable splits."""
    from pathlib import Path

    from components.configuration.form import RunForm, begin_run
    from components.core.record import open_step
    from components.ingest.ingest import ingest_data

    form = RunForm(
        profile=profile,
        settings=settings,
        spans=spans,
        thresholds=thresholds,
        rollout_strategy=rollout_strategy,
        rollout_steps=rollout_steps,
        site=site,
        accelerator_type=accelerator_type,
        accelerator_count=accelerator_count,
    )
    with open_step("ingest", store=store, run_id=run_id, view=view.path) as record:
        begin_run(record.store, run_id, form)
        ingest_data(record, data=data, settings=record.settings, output=Path(examples.path), shards=len(shards or [""]))
