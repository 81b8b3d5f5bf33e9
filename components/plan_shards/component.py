"""plan_shards: how many pods a run of this size is worth."""

from typing import NamedTuple

from kfp import dsl

from components.core.step import step


@step(image="dual-trainer")
def plan_shards(
    data: str,
    store: str,
    run_id: str,
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
) -> NamedTuple("Shards", [("ingest", list[str]), ("evaluation", list[str])]):  # type: ignore[valid-type]
    """Resolve the run's settings; share ingest and the evaluations out by the size of the data."""
    from components.configuration.form import RunForm, begin_run
    from components.core.record import open_step
    from components.core.shards import all_shards
    from components.plan_shards.plan import plan_shards as plan

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
    with open_step("plan_shards", store=store, run_id=run_id, view=view.path) as record:
        begin_run(record.store, run_id, form)
        counts = plan(record, data=data)
    # By the order of the fields; KFP asks for a tuple and not for its class.
    return tuple([str(shard) for shard in all_shards(count)] for count in counts)
