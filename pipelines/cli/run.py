"""dual run: the whole pipeline on this machine."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from pipelines.cli.options import json_option, print_json, settings_options, store_option


@click.command("run")
@click.option(
    "--data", required=True, metavar="SOURCE", help="Folder, CSV, archive, TFRecords (local, http(s), gs://, s3://); flowers; drawn."
)
@store_option
@settings_options
@json_option
@click.option("--run-id", default="", help="Name of the run's folder in the store (made up if not given).")
def command(data: str, store: str, profile: str, config: Path | None, overrides: tuple[str, ...], as_json: bool, run_id: str) -> None:
    """Train, judge and ship a pair of models from labelled images.

    Ends with SHIPPED (exit 0), NOT SHIPPED with the gates' reasons (exit 3), or FAILED with the step and its error.
    """
    from pipelines.settings import load_settings

    settings = load_settings(profile, config, overrides)
    outcome = execute(data, store, settings, quiet=as_json, run_id=run_id)
    if as_json:
        print_json(asdict(outcome))
    raise SystemExit(outcome.exit_code)


def execute(data: str, store: str, settings: Any, *, quiet: bool, run_id: str = "") -> Any:
    """Run with progress on the terminal and print the summary; returns the outcome."""
    from rich.console import Console

    from components.report.story import ORDER
    from pipelines.local import run_local
    from pipelines.progress import make_progress

    console = Console(stderr=quiet)
    outcome = run_local(data, store, settings, make_progress(ORDER, console, quiet=quiet), run_id)
    if not quiet:
        print_summary(outcome, store, console)
    return outcome


def print_summary(outcome: Any, store: str, console: Any) -> None:
    """The verdict, why, and what to do next."""
    colour = {"SHIPPED": "green", "NOT SHIPPED": "yellow", "FAILED": "red"}[outcome.outcome]
    console.print(f"\n[bold {colour}]{outcome.outcome}[/]  run {outcome.run_id}, {outcome.seconds:.0f} s")
    rows = [("why", outcome.why), ("release", outcome.release), ("report", outcome.report), ("log", outcome.log)]
    for name, text in rows:
        if text:
            console.print(f"  {name:<8} {text}", markup=False, highlight=False, soft_wrap=True)
    if outcome.release:
        console.print(f"  next     dual serve --store {store}", markup=False, highlight=False, soft_wrap=True)
        console.print(f"           dual predict --store {store} --model layered IMAGE", markup=False, highlight=False, soft_wrap=True)
