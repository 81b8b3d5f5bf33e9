"""report: the exit step, which runs whatever happened before."""

from kfp import dsl

from components.core.step import step


@step(image="dual-deployer")
def report(
    store: str,
    run_id: str,
    status: dsl.PipelineTaskFinalStatus,
    page: dsl.Output[dsl.HTML],
    summary: dsl.Output[dsl.Markdown],
) -> None:
    """Write the run's report to the store and to the KFP UI: verdict first, on failure too."""
    from pathlib import Path

    from components.core.record import open_step
    from components.core.run_settings import read_settings
    from components.report.report import write_report

    # A run that failed before it had settings is reported with the defaults.
    # `status` is not used for the verdict: backends disagree on it (FAILED after a successful retry); the records decide.
    with open_step("report", store=store, run_id=run_id) as record:
        write_report(record, settings=read_settings(record.store, run_id, default="{}"), page=Path(page.path), summary=Path(summary.path))
