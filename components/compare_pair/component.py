"""compare_pair: do the two models agree, and when should a phone ask the cloud?"""

from kfp import dsl

from components.core.step import step


@step(image="dual-trainer")
def compare_pair(
    store: str,
    run_id: str,
    cloud: dsl.Input[dsl.Artifact],
    mobile: dsl.Input[dsl.Artifact],
    examples: dsl.Input[dsl.Dataset],
    pair: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    view: dsl.Output[dsl.HTML],
) -> None:
    """Compare both evaluations by key, choose the layered policy, and judge."""
    from pathlib import Path

    from components.compare_pair.compare import compare_pair_models
    from components.core.record import open_step

    with open_step("compare_pair", store=store, run_id=run_id, view=view.path) as record:
        where = {"examples": Path(examples.path), "cloud": Path(cloud.path), "mobile": Path(mobile.path), "output": Path(pair.path)}
        compare_pair_models(record, settings=record.settings, **where)
        record.log_metrics(metrics)
