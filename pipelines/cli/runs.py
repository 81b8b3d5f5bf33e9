"""dual runs: what runs, and ran, on a service that runs pipelines."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from pipelines.cli.backend_options import Place, place_options
from pipelines.cli.options import json_option, print_json


@click.group("runs")
def command() -> None:
    """List, show, watch and steer runs on Kubeflow Pipelines or Vertex AI."""


@command.command("list")
@place_options
@click.option("--experiment", default="", help="Only of this experiment.")
@click.option("--name", default="", help="Only with this in their name.")
@click.option("--state", default="", help="Only pending, running, succeeded, failed, skipped, canceling or canceled.")
@click.option("--archived", is_flag=True, help="Those that were archived, instead of the others.")
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="How many.")
@click.option("--page", default="", help="Go on where a former list ended.")
@json_option
def list_(place: Place, experiment: str, name: str, state: str, archived: bool, limit: int, page: str, as_json: bool) -> None:
    """List runs, newest first."""
    from pipelines.cli.run_view import print_runs, run_json
    from pipelines.submission.backend import Query

    with place.open() as backend:
        query = Query(experiment=experiment, name=name, state=state, archived=archived, limit=limit, page=page)
        found = backend.runs(query)
    if as_json:
        print_json({"runs": [run_json(run) for run in found.runs], "following": found.following})
    else:
        scope = ("--experiment", experiment) if experiment else ()
        more = place.again("runs", "list", *scope, "--limit", str(limit), "--page", found.following)
        print_runs(found.runs, more if found.following else "")


@command.command("show")
@click.argument("run_id")
@place_options
@click.option("--store", default="", metavar="URI", help="Where the run's records are. Default: what the run was told.")
@click.option("--nodes", is_flag=True, help="The nodes of its Workflow too, from an argo-server (ARGO_SERVER) or the Kubernetes API.")
@json_option
def show(run_id: str, place: Place, store: str, nodes: bool, as_json: bool) -> None:
    """Show a run: each step's state, how long it took, and what went wrong."""
    from pipelines.cli.run_view import print_run, run_json
    from pipelines.submission.verdict import step_errors

    with place.open() as backend:
        run = backend.run(run_id)
        found = _nodes(backend, run_id) if nodes else []
        errors = step_errors(run, backend.parameters(run), store)
    if as_json:
        more = {"nodes": [asdict(node) for node in found]} if nodes else {}
        print_json(run_json(run, step_errors=errors, **more))
        return
    print_run(run, errors)
    for node in found:
        click.echo(f"  {node.name:<50} {node.kind:<6} {node.phase:<10} {node.pod}  {node.message}".rstrip())


@command.command("watch")
@click.argument("run_id")
@place_options
@click.option("--store", default="", metavar="URI", help="Where the run's records are. Default: what the run was told.")
@click.option("--every", type=click.FloatRange(min=0.02), default=5.0, show_default=True, help="Seconds between two looks.")
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Default: RUN.html.")
@json_option
def watch(run_id: str, place: Place, store: str, every: float, report: Path | None, as_json: bool) -> None:
    """Follow a run until it is over; exit codes as for dual run."""
    from pipelines.cli.run_view import watch_run
    from pipelines.submission.verdict import store_in

    with place.open() as backend:
        run = backend.run(run_id)
        page, where = report or Path(f"{run_id}.html"), store or store_in(backend.parameters(run))
        raise SystemExit(watch_run(backend, run, where, every=every, report=page, as_json=as_json, again=place.again))


@command.command("logs")
@click.argument("run_id")
@click.argument("step", required=False, default="")
@place_options
@click.option("--lines", type=click.IntRange(1, 100_000), default=200, show_default=True, help="How many, from the end.")
def logs(run_id: str, step: str, place: Place, lines: int) -> None:
    """Print what STEP (default: every step) wrote, from an argo-server (ARGO_SERVER) or from the pods."""
    from pipelines.submission.argo.nodes import logs as read_logs

    with place.open() as backend:
        for pod, text in read_logs(_source(backend), run_id, step, lines):
            click.echo(f"==> {pod} <==\n{text.rstrip()}")


@command.command("retry")
@click.argument("run_id")
@place_options
@json_option
def retry(run_id: str, place: Place, as_json: bool) -> None:
    """Run the failed steps of a failed or terminated run again; what succeeded is kept. Vertex offers none."""
    _steer(place, run_id, lambda backend: backend.retry(run_id), "is retried", as_json)


@command.command("terminate")
@click.argument("run_id")
@place_options
@json_option
def terminate(run_id: str, place: Place, as_json: bool) -> None:
    """End a run. Kubeflow calls it FAILED afterwards; here it is called terminated, as long as its Workflow is kept."""
    _steer(place, run_id, lambda backend: backend.terminate(run_id), "is being terminated", as_json)


@command.command("archive")
@click.argument("run_id")
@place_options
@json_option
def archive(run_id: str, place: Place, as_json: bool) -> None:
    """Take a run out of the lists; nothing is deleted. Vertex offers none."""
    _steer(place, run_id, lambda backend: backend.archive(run_id), "is archived", as_json)


@command.command("delete")
@click.argument("run_id")
@place_options
@json_option
def delete(run_id: str, place: Place, as_json: bool) -> None:
    """Vertex: remove a run that is over; its records and releases in the store stay."""
    with place.open() as backend:
        backend.delete(run_id)
    if as_json:
        print_json({"run": run_id, "done": "is deleted"})
    else:
        click.echo(f"{run_id} is deleted; its records stay in the store")


@command.command("unarchive")
@click.argument("run_id")
@place_options
@json_option
def unarchive(run_id: str, place: Place, as_json: bool) -> None:
    """Put an archived run back into the lists."""
    _steer(place, run_id, lambda backend: backend.archive(run_id, back=True), "is back in the lists", as_json)


def _steer(place: Place, run_id: str, act: Callable[[Any], None], said: str, as_json: bool) -> None:
    with place.open() as backend:
        act(backend)
    if as_json:
        print_json({"run": run_id, "done": said})
    else:
        click.echo(f"{run_id} {said}; see: {place.again('runs', 'show', run_id)}")


def _nodes(backend: Any, run_id: str) -> list[Any]:
    from pipelines.submission.argo.nodes import nodes_of

    return nodes_of(_source(backend).workflow(run_id))


def _source(backend: Any) -> Any:
    """An argo-server if ARGO_SERVER names one, else the Kubernetes API."""
    from components.core.errors import UsageError
    from pipelines.submission.argo.nodes import ClusterSource
    from pipelines.submission.argo.server import find_server

    if backend.target != "kubeflow":
        raise UsageError("only Kubeflow's runs have a Workflow", where=f"--target {backend.target}", fix="Look at the service's own pages")
    namespace = backend.connected.pods_namespace
    return find_server(namespace) or ClusterSource(backend.connected.cluster(), namespace)
