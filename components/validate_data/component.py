"""validate_data: statistics, schema, anomalies, skew and drift of the examples."""

from kfp import dsl

from components.core.step import step


@step(image="dual-trainer")
def validate_data(
    store: str,
    run_id: str,
    examples: dsl.Input[dsl.Dataset],
    statistics: dsl.Output[dsl.Artifact],
    view: dsl.Output[dsl.HTML],
) -> None:
    """Check the examples against the store's schema and reference; errors stop the run, warnings are reported."""
    from pathlib import Path

    from components.core.record import open_step
    from components.validate_data.validate import check_examples

    with open_step("validate_data", store=store, run_id=run_id, view=view.path) as record:
        check_examples(record, examples=Path(examples.path), settings=record.settings, output=Path(statistics.path))
