"""How runs of a backend are shown: while they run, when they are over, in lists, and as JSON."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from pipelines.cli.options import print_json

_COLOURS = {"SHIPPED": "green", "NOT SHIPPED": "yellow", "FAILED": "red", "TERMINATED": "yellow", "UNKNOWN": "red", "RUNNING": "cyan"}
INTERRUPTED = 130


def watch_run(backend: Any, run: Any, store: str, *, every: float, report: Path | None, as_json: bool, again: Callable[..., str]) -> int:
    """Follow a run and print its verdict; the exit code. Ctrl-C ends the watching and not the run."""
    from rich.console import Console

    from components.report.story import EVERY_STEP
    from pipelines.progress import make_progress
    from pipelines.submission.verdict import Remarks, judge
    from pipelines.submission.watching import Watcher

    console = Console(stderr=as_json)
    progress = make_progress(EVERY_STEP, console, quiet=as_json)
    try:
        with progress:
            run = Watcher(backend, progress, Remarks(store, run.id).of).follow(run, every)
    except KeyboardInterrupt:
        _say_how_to_go_on(run, again)
        return INTERRUPTED
    verdict = judge(run, store, report)
    if as_json:
        print_json(asdict(verdict))
    else:
        print_verdict(verdict, store, console)
    _say_blindness(backend)
    return verdict.exit_code


def print_verdict(verdict: Any, store: str, console: Any) -> None:
    """The outcome, why, and what to do next."""
    took = f", {verdict.seconds:.0f} s" if verdict.seconds is not None else ""
    console.print(f"\n[bold {_COLOURS[verdict.outcome]}]{verdict.outcome}[/]  run {verdict.run_id}{took}")
    rows = [("why", verdict.why), ("release", verdict.release), ("report", verdict.report), ("link", verdict.link)]
    rows += [("next", f"dual predict --store {store} --model layered IMAGE")] if verdict.release else []
    for name, text in rows:
        if text:
            console.print(f"  {name:<8} {text}", markup=False, highlight=False, soft_wrap=True)


def print_run(run: Any, errors: dict[str, str]) -> None:
    """One run with its steps; `errors` are the steps' own words, where the store's records have some."""
    when = f"{stamp(run.created)}, " if run.created else ""
    click.echo(f"{run.id}  {run.name}: {run.state} ({when}{duration(run.seconds())}){'  archived' if run.archived else ''}")
    for name, text in (("error", run.error), ("link", run.link), ("schedule", run.schedule)):
        if text:
            click.echo(f"  {name:<8} {text}")
    for task in run.tasks:
        error = errors.get(task.name) or task.error
        click.echo(f"  {task.name:<17} {task.state:<11} {duration(task.seconds()):>8}{'  ' + error if error else ''}".rstrip())


def print_runs(runs: Any, more: str) -> None:
    """One line for each run, and the command that shows more, if there are."""
    for run in runs:
        click.echo(f"{run.id}  {stamp(run.created):<20}  {run.state:<11} {duration(run.seconds()):>8}  {run.name}")
    if more:
        click.echo(f"more: {more}", err=True)


def run_json(run: Any, **more: Any) -> dict[str, Any]:
    """A run as JSON: times in ISO 8601, durations in seconds."""
    values = asdict(run)
    values["seconds"] = run.seconds()
    values["tasks"] = [{**asdict(task), "seconds": task.seconds()} for task in run.tasks]
    return _plain({**values, **more})


def duration(seconds: float | None) -> str:
    """75 → 1m15s; a dash for what has not started."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def stamp(time: datetime | None) -> str:
    """A time in UTC, to the second."""
    return f"{time:%Y-%m-%dT%H:%M:%SZ}" if time else "-"


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return stamp(value)
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _say_how_to_go_on(run: Any, again: Callable[..., str]) -> None:
    click.echo(f"\nStopped watching; the run {run.id} goes on.", err=True)
    click.echo(f"  watch again  {again('runs', 'watch', run.id)}", err=True)
    click.echo(f"  end it       {again('runs', 'terminate', run.id)}", err=True)


def _say_blindness(backend: Any) -> None:
    if why := backend.blindness():
        click.echo(f"note: pods could not be looked at: {why}", err=True)
