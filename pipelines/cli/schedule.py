"""dual schedule: runs that start by themselves."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from pipelines.cli.backend_options import Place, place_options
from pipelines.cli.options import json_option, print_json
from pipelines.cli.package_options import Wanted, package_options

engine_option = click.option(
    "--engine",
    type=click.Choice(["kubeflow", "argo"]),
    default="kubeflow",
    show_default=True,
    help="The service's own scheduler (Kubeflow's, Vertex'), or a CronWorkflow of Argo that submits.",
)


@click.group("schedule")
def command() -> None:
    """Create, list, pause and delete schedules."""


@dataclass(frozen=True, kw_only=True)
class When:
    """The flags that make a plan."""

    cron: str
    every: str
    start: str
    end: str
    catch_up: bool
    max_concurrency: int
    timezone: str
    seconds_first: bool

    def plan(self, zone: str) -> Any:
        """The plan; `zone` is what --timezone overrides."""
        from pipelines.submission.trigger import read_plan

        return read_plan(
            self.cron,
            self.every,
            start=self.start,
            end=self.end,
            catch_up=self.catch_up,
            max_concurrency=self.max_concurrency,
            zone=self.timezone or zone,
            seconds_first=self.seconds_first,
        )


def when_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The flags of `When`, as one argument `when`."""
    options = [
        click.option("--cron", default="", metavar="EXPR", help="Five fields: minute hour day month weekday; or @daily, @weekly …"),
        click.option("--every", default="", metavar="TIME", help="Instead: an interval, such as 6h, 1d or 1h30m."),
        click.option("--start", default="", metavar="TIME", help="Not before, such as 2027-01-31 or 2027-01-31T03:00."),
        click.option("--end", default="", metavar="TIME", help="Not after."),
        click.option("--catch-up", is_flag=True, help="Make up for times that were missed."),
        click.option("--max-concurrency", type=int, default=1, show_default=True, help="Runs at once, 1 to 10."),
        click.option("--timezone", default="", help="Argo, Vertex: the schedule's. Kubeflow: what it is set to. Default: UTC."),
        click.option("--seconds-first", is_flag=True, help="--cron has six fields, and the first one is the second."),
    ]
    for option in reversed(options):
        function = option(function)

    @functools.wraps(function)
    def collected(*args: Any, **kwargs: Any) -> Any:
        return function(*args, when=When(**{name: kwargs.pop(name) for name in When.__dataclass_fields__}), **kwargs)

    return collected


@command.command("create")
@click.argument("name")
@place_options
@package_options
@when_options
@engine_option
@click.option("--replace", is_flag=True, help="Put it in the place of one of the same name that differs.")
@click.option("--paused", is_flag=True, help="Make it without starting it.")
@click.option("--image", default="", help="Argo: the dual-deployer image (default: from --images or --registry).")
@click.option("--no-wait", is_flag=True, help="Argo: the Workflow only submits, and does not wait for the run.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Argo: write YAML, ask nobody.")
@json_option
def create(
    name: str, place: Place, wanted: Wanted, when: When, engine: str, replace: bool, paused: bool, as_json: bool, **argo: Any
) -> None:
    """Make sure of the schedule NAME, and print when it comes due next.

    \b
      dual schedule create weekly --cron '0 3 * * 1' --package pipeline.yaml --data gs://bucket/flowers --store gs://bucket/store

    The same again changes nothing; something else under the name is refused without --replace.
    """  # noqa: D301 - click wants the real backspace character
    from pipelines.cli.schedule_argo import create_argo

    if engine == "argo":
        _refuse_argo_elsewhere(place)
        create_argo(name, place, wanted, when, replace=replace, paused=paused, as_json=as_json, **argo)
        return
    _refuse_argo_flags(argo)
    plan = when.plan(_installation_zone(place))
    package = None if wanted.version else wanted.compiled(place.target)
    if package:
        wanted.parameters_for(package.inputs, package.name)
    _keep(name, place, wanted, package, plan, replace=replace, paused=paused, as_json=as_json)


@command.command("list")
@place_options
@engine_option
@json_option
def list_(place: Place, engine: str, as_json: bool) -> None:
    """List schedules, oldest first."""
    from pipelines.cli.schedule_argo import list_argo
    from pipelines.cli.schedule_view import line_of, schedule_json

    if engine == "argo":
        list_argo(place, as_json)
        return
    with place.open() as backend:
        found = backend.schedules()
    if as_json:
        print_json([schedule_json(each) for each in found])
        return
    for each in found:
        click.echo(line_of(each))


@command.command("show")
@click.argument("name")
@place_options
@engine_option
@json_option
def show(name: str, place: Place, engine: str, as_json: bool) -> None:
    """Show a schedule (by name or id): what it runs, and when next."""
    from pipelines.cli.schedule_argo import show_argo
    from pipelines.cli.schedule_view import print_schedule, schedule_json
    from pipelines.submission.schedules import find

    if engine == "argo":
        show_argo(name, place, as_json)
        return
    with place.open() as backend:
        found = find(backend, name)
    if as_json:
        print_json(schedule_json(found))
    else:
        print_schedule(found)


@command.command("pause")
@click.argument("name")
@place_options
@engine_option
@json_option
def pause(name: str, place: Place, engine: str, as_json: bool) -> None:
    """Start no more runs until it is resumed; runs that are under way go on."""
    _enable(name, place, engine, as_json, enabled=False)


@command.command("resume")
@click.argument("name")
@place_options
@engine_option
@json_option
def resume(name: str, place: Place, engine: str, as_json: bool) -> None:
    """Start runs again. With --catch-up, those that were missed too."""
    _enable(name, place, engine, as_json, enabled=True)


@command.command("delete")
@click.argument("name")
@place_options
@engine_option
@json_option
def delete(name: str, place: Place, engine: str, as_json: bool) -> None:
    """Remove a schedule; the runs that it started stay."""
    from pipelines.cli.schedule_argo import delete_argo
    from pipelines.submission.schedules import find

    if engine == "argo":
        delete_argo(name, place)
    else:
        with place.open() as backend:
            backend.delete_schedule(find(backend, name).id)
    _say(name, "deleted", as_json)


def _keep(name: str, place: Place, wanted: Wanted, package: Any, plan: Any, *, replace: bool, paused: bool, as_json: bool) -> None:
    from pipelines.cli.schedule_view import print_kept
    from pipelines.submission.backend import Order
    from pipelines.submission.schedules import keep

    with place.open() as backend:
        version = backend.ensure_version(package) if package else backend.find_version(wanted.pipeline, wanted.version)
        order = Order(
            experiment=wanted.experiment,
            name=name,
            parameters=wanted.parameters_for(version.inputs, version.name),
            service_account=wanted.service_account,
            pipeline_root=wanted.pipeline_root,
        )
        kept = keep(backend, name, version, order, plan, replace=replace, enabled=not paused)
    print_kept(kept, as_json)


def _enable(name: str, place: Place, engine: str, as_json: bool, *, enabled: bool) -> None:
    from pipelines.cli.schedule_argo import enable_argo
    from pipelines.submission.schedules import find

    if engine == "argo":
        enable_argo(name, place, enabled=enabled)
    else:
        with place.open() as backend:
            backend.enable_schedule(find(backend, name).id, enabled=enabled)
    _say(name, "resumed" if enabled else "paused", as_json)


def _say(name: str, done: str, as_json: bool) -> None:
    if as_json:
        print_json({"schedule": name, "done": done})
    else:
        click.echo(f"{name} {done}")


def _installation_zone(place: Place) -> str:
    """What a schedule's times are in unless --timezone says another; Vertex' schedules name theirs."""
    if place.target == "vertex":
        return "UTC"
    from pipelines.submission.kubeflow.connection import read_connection

    return read_connection(place.file, place.flags).cron_timezone


def _refuse_argo_elsewhere(place: Place) -> None:
    from components.core.errors import UsageError

    if place.target != "kubeflow":
        fix = "Leave --engine away: Vertex has a scheduler of its own"
        raise UsageError("Argo's schedules submit to Kubeflow", where=f"--engine argo --target {place.target}", fix=fix)


def _refuse_argo_flags(argo: dict[str, Any]) -> None:
    from components.core.errors import UsageError

    if given := [name for name, value in argo.items() if value]:
        flags = ", ".join(f"--{each.replace('_', '-')}" for each in given)
        raise UsageError("belong to --engine argo", where=flags, fix="Add --engine argo, or leave them away")
