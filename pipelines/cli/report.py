"""dual report: the page of a run."""

from pathlib import Path

import click

from pipelines.cli.options import json_option, print_json, store_option


@click.command("report")
@click.argument("run_id", required=False)
@store_option
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Where to write the page (default: RUN.html).")
@click.option("--list", "list_runs", is_flag=True, help="List the store's runs instead.")
@json_option
def command(run_id: str | None, store: str, output: Path | None, list_runs: bool, as_json: bool) -> None:
    """Write the HTML report of RUN_ID (default: the newest run) from its records, also of a run that was killed half-way."""
    from components.core.errors import UsageError
    from components.core.record import read_records, run_ids
    from components.core.stores import open_store
    from components.report.page import render
    from components.report.story import tell

    opened = open_store(store)
    runs = run_ids(opened)
    if not runs:
        raise UsageError("there are no runs in this store", where=store, fix="Start one with: dual run --data SOURCE --store STORE")
    if list_runs:
        _print_runs([(run, tell(read_records(opened, run)).outcome) for run in runs], as_json)
        return
    chosen = run_id or runs[-1]
    if chosen not in runs:
        raise UsageError(f"there is no run '{chosen}'", where=store, fix="See: dual report --list")
    path = output or Path(f"{chosen}.html")
    path.write_text(render(opened, chosen))
    story = tell(read_records(opened, chosen))
    if as_json:
        print_json({"run": chosen, "outcome": story.outcome, "release": story.release, "why": story.why, "report": str(path)})
    else:
        click.echo(f"{story.outcome}: {path}")


def _print_runs(rows: list[tuple[str, str]], as_json: bool) -> None:
    for run, outcome in rows:
        if as_json:
            print_json({"run": run, "outcome": outcome})
        else:
            click.echo(f"{run}  {outcome}")
