"""How schedules are shown."""

from typing import Any

import click

from pipelines.cli.options import print_json
from pipelines.cli.run_view import stamp


def line_of(schedule: Any) -> str:
    """One schedule in a line."""
    state = "on" if schedule.enabled else "paused"
    return f"{schedule.id}  {state:<6}  {schedule.name}: {schedule.plan.described()}{_bounds(schedule.plan)}"


def print_schedule(schedule: Any) -> None:
    """One schedule with what it runs and the next times."""
    click.echo(line_of(schedule))
    plan = schedule.plan
    click.echo(f"  version   {schedule.version}")
    click.echo(f"  at once   {plan.max_concurrency}; missed times are {'made up for' if plan.catch_up else 'left out'}")
    for name, value in schedule.order.parameters.items():
        click.echo(f"  {name} = {value}")
    _print_next(schedule)


def print_kept(kept: Any, as_json: bool) -> None:
    """What was done, and the next times."""
    if as_json:
        print_json({"change": kept.change, "differences": list(kept.differences), **schedule_json(kept.schedule)})
        return
    click.echo(f"{kept.change}: {line_of(kept.schedule)}")
    for difference in kept.differences:
        click.echo(f"  {difference}")
    _print_next(kept.schedule)


def schedule_json(schedule: Any) -> dict[str, Any]:
    """A schedule as JSON, with the next three times."""
    plan = schedule.plan
    return {
        "id": schedule.id,
        "name": schedule.name,
        "enabled": schedule.enabled,
        "trigger": plan.described(),
        "start": stamp(plan.start) if plan.start else None,
        "end": stamp(plan.end) if plan.end else None,
        "catch_up": plan.catch_up,
        "max_concurrency": plan.max_concurrency,
        "version": schedule.version,
        "parameters": dict(schedule.order.parameters),
        "link": schedule.link,
        "next": next_times(schedule),
    }


def next_times(schedule: Any) -> list[str]:
    """The next three times in words; none while it is paused."""
    from pipelines.submission.trigger import next_lines

    return next_lines(schedule.plan, "kubeflow") if schedule.enabled else []


def _print_next(schedule: Any) -> None:
    for time in next_times(schedule):
        click.echo(f"  next      {time}")
    if not schedule.enabled:
        click.echo("  next      not while it is paused")


def _bounds(plan: Any) -> str:
    start = f", from {stamp(plan.start)}" if plan.start else ""
    return start + (f", until {stamp(plan.end)}" if plan.end else "")
