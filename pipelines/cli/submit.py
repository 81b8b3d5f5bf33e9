"""dual submit: the pipeline on a service that runs pipelines."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from pipelines.cli.backend_options import Place, place_options
from pipelines.cli.options import json_option, print_json
from pipelines.cli.package_options import Wanted, package_options


@click.command("submit")
@place_options
@package_options
@click.option("--name", default="", help="Of the run. Default: the pipeline's, and the time.")
@click.option("--upload-only", is_flag=True, help="Make sure of the version and start nothing.")
@click.option("--watch", is_flag=True, help="Wait until the run is over; exit codes as for dual run.")
@click.option("--every", type=click.FloatRange(min=0.02), default=5.0, show_default=True, help="With --watch: seconds between two looks.")
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="With --watch (default: RUN.html).")
@json_option
def command(
    place: Place, wanted: Wanted, name: str, upload_only: bool, watch: bool, every: float, report: Path | None, as_json: bool
) -> None:
    """Start a run on Kubeflow Pipelines or Vertex AI Pipelines.

    \b
      dual submit --images build.json --site site.yaml --data gs://bucket/flowers.tar.gz --store gs://bucket/store --watch

    The same package twice makes no second version. With --watch it ends with SHIPPED (exit 0), NOT SHIPPED and why (exit 3), or FAILED, as
    the records in the store say; Ctrl-C ends the watching and not the run.
    """  # noqa: D301 - click wants the real backspace character
    from pipelines.cli.run_view import watch_run

    _refuse_upload(place, upload_only)
    package = None if wanted.version else wanted.compiled(place.target)
    if package and not upload_only:
        # Before the network is asked: what is wrong here needs no server to say it.
        wanted.parameters_for(package.inputs, package.name)
    with place.open() as backend:
        version = backend.ensure_version(package) if package else backend.find_version(wanted.pipeline, wanted.version)
        if upload_only:
            _print_version(version, as_json)
            return
        order = _order(wanted, version, name)
        store = _store(version, order) if watch else ""
        run = backend.start(version, order)
        _print_started(version, run, place, quiet=as_json and watch, as_json=as_json)
        if watch:
            page = report or Path(f"{run.id}.html")
            raise SystemExit(watch_run(backend, run, store, every=every, report=page, as_json=as_json, again=place.again))


def _refuse_upload(place: Place, upload_only: bool) -> None:
    from components.core.errors import UsageError

    if upload_only and place.target == "vertex":
        fix = "Leave it away: the package goes with each run, and dual runs list knows its version"
        raise UsageError("Vertex keeps no packages", where="--upload-only", fix=fix)


def _order(wanted: Wanted, version: Any, name: str) -> Any:
    from pipelines.submission.backend import Order

    return Order(
        experiment=wanted.experiment,
        name=name or f"{wanted.pipeline} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
        parameters=wanted.parameters_for(version.inputs, version.name),
        service_account=wanted.service_account,
        pipeline_root=wanted.pipeline_root,
    )


def _store(version: Any, order: Any) -> str:
    """Where the run's records will be: known before it starts, since without them nobody could say how it ended."""
    from pipelines.submission.package import with_defaults
    from pipelines.submission.verdict import store_in

    return store_in(with_defaults(order.parameters, version.inputs))


def _print_version(version: Any, as_json: bool) -> None:
    if as_json:
        print_json({"version": version.name, "id": version.id, "created": version.created, "link": version.link})
    else:
        click.echo(f"{version.name}  {'new' if version.created else 'there already'}{'  ' + version.link if version.link else ''}")


def _print_started(version: Any, run: Any, place: Place, *, quiet: bool, as_json: bool) -> None:
    if as_json and not quiet:
        print_json({"run": run.id, "name": run.name, "link": run.link, "version": version.name, "created": version.created})
    if as_json:
        return
    known = "goes with the run" if place.target == "vertex" else "new" if version.created else "there already"
    click.echo(f"version  {version.name} ({known})")
    click.echo(f"run      {run.id}  {run.name}")
    click.echo(f"link     {run.link or 'the installation names no web page: set DUAL_KFP_UI, or port-forward svc/ml-pipeline-ui'}")
    click.echo(f"watch    {place.again('runs', 'watch', run.id)}")
