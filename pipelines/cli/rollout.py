"""dual rollout: the cloud half's way to live traffic on Kubernetes or on a Vertex AI endpoint, and back."""

import getpass
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipelines.cli import rollout_endpoint as on_endpoint
from pipelines.cli.follow import command as follow
from pipelines.cli.options import json_option, print_json, rollout_options, store_option

_PLAN_HELP = "YAML: strategy, steps, analysis …; with --target vertex what settings call roll_out_cloud.vertex: container, machines, plan …"


@click.group("rollout")
def command() -> None:
    """Start, watch, steer and undo rollouts on Kubernetes, or with --target vertex on a Vertex AI endpoint.

    On Kubernetes the same actions work without Python: kubectl annotate configmap classifier-rollout dual.dev/action=promote (pause,
    resume, abort; where `dual rollout follow` runs also undo, at any time).
    """


command.add_command(follow)


@command.command("start")
@click.argument("release", required=False)
@store_option
@rollout_options
@click.option("--plan", "plan_file", type=click.Path(path_type=Path, dir_okay=False, exists=True), help=_PLAN_HELP)
@json_option
def start(release: str | None, store: str, cluster: Any, plan_file: Path | None, as_json: bool) -> None:
    """Roll RELEASE out (default: the newest of the store), publish its pair, and wait until the old version is gone."""
    from serving.rollout.cluster.actions import ship

    opened = _open(store)
    chosen = release or _newest(opened)
    if cluster[1] is None:
        _end(on_endpoint.start(opened, chosen, cluster[0], plan_file, _me(), _say(as_json)), as_json)
        return
    name, settings = cluster[0], _settings(cluster[1], plan_file)
    _end(ship(opened, chosen, name, settings, run_id=_me(), say=_say(as_json)), as_json)


@command.command("status")
@rollout_options
@store_option
@click.option("--watch", is_flag=True, help="Go on printing transitions until the rollout is over.")
@json_option
def status(cluster: Any, store: str, watch: bool, as_json: bool) -> None:
    """Say where the rollout stands, what it measured, and what may be done next."""
    if cluster[1] is None:
        on_endpoint.status(_open(store), watch=watch, as_json=as_json)
        return
    from pipelines.cli.rollout_view import show, watch_transitions
    from serving.rollout.cluster.actions import reader

    api, names, book = reader(cluster[0], _settings(cluster[1]))
    state = book.read()
    if as_json:
        print_json(state.model_dump(mode="json", by_alias=True) if state else None)
        return
    show(api, names, state, store)
    if watch and state is not None:
        watch_transitions(book, state)


@command.command("promote")
@store_option
@rollout_options
@json_option
def promote(store: str, cluster: Any, as_json: bool) -> None:
    """Move all live traffic now, skipping the rest of the steps."""
    _steer("promote", store, cluster, as_json)


@command.command("resume")
@store_option
@rollout_options
@json_option
def resume(store: str, cluster: Any, as_json: bool) -> None:
    """Go on after a pause; take over a rollout whose process is gone."""
    _steer("resume", store, cluster, as_json)


@command.command("pause")
@store_option
@rollout_options
@json_option
def pause(store: str, cluster: Any, as_json: bool) -> None:
    """Stay where the rollout is until somebody resumes, promotes or aborts."""
    heard = _pause(store, cluster)
    if as_json:
        print_json({"heard": heard})
    else:
        click.echo("paused" if heard else "no process runs this rollout: it stands still already; `dual rollout resume` takes it over")


@command.command("abort")
@store_option
@rollout_options
@click.option("--reason", default="", help="Kept in the history.")
@json_option
def abort(store: str, cluster: Any, reason: str, as_json: bool) -> None:
    """Go back to the stable release now."""
    why = reason or "abort was asked for"
    if cluster[1] is None:
        _end(on_endpoint.abort(_open(store), why, _me(), _say(as_json)), as_json)
        return
    from serving.rollout.cluster.actions import abort as go_back
    from serving.rollout.cluster.actions import reader, request

    name, settings = cluster[0], _settings(cluster[1])
    api, names, book = reader(name, settings)
    if request(api, names, "abort"):
        _end(book.read(), as_json)
        return
    _end(go_back(_open(store), name, settings, run_id=_me(), reason=why, say=_say(as_json)), as_json)


@command.command("undo")
@store_option
@rollout_options
@click.option("--reason", default="", help="Kept in the history.")
@json_option
def undo(store: str, cluster: Any, reason: str, as_json: bool) -> None:
    """Go back to the release before the promoted one, both halves; a rollout that is not published yet is aborted instead."""
    if cluster[1] is None:
        _end(on_endpoint.undo(_open(store), reason, _me(), _say(as_json)), as_json)
        return
    from serving.rollout.cluster.actions import undo as go_back

    _end(go_back(_open(store), cluster[0], _settings(cluster[1]), run_id=_me(), reason=reason, say=_say(as_json)), as_json)


@command.command("history")
@rollout_options
@store_option
@json_option
def history(cluster: Any, store: str, as_json: bool) -> None:
    """List the rollouts that are over, newest last."""
    if cluster[1] is None:
        on_endpoint.history(_open(store), as_json)
        return
    from serving.rollout.cluster.actions import reader

    _, _, book = reader(cluster[0], _settings(cluster[1]))
    state = book.read()
    for each in state.history if state else []:
        if as_json:
            print_json(each.model_dump(mode="json"))
        else:
            click.echo(f"{each.epoch:>4}  {each.ended}  {each.revision.release}  {each.outcome:<11} {each.reason}".rstrip())


@command.command("plan")
@rollout_options
@store_option
@click.option("--plan", "plan_file", type=click.Path(path_type=Path, dir_okay=False, exists=True), help=_PLAN_HELP)
@json_option
def plan(cluster: Any, store: str, plan_file: Path | None, as_json: bool) -> None:
    """Print what a rollout would do, step by step, with the weights that this place can give. Changes nothing."""
    rows = _plan_rows(store, cluster, plan_file)
    if as_json:
        print_json([{"phase": phase, "what": text} for phase, text in rows])
    else:
        click.echo("\n".join(f"{phase:<17} {text}" for phase, text in rows))


def _plan_rows(store: str, cluster: Any, plan_file: Path | None) -> list[tuple[str, str]]:
    if cluster[1] is None:
        return on_endpoint.plan(_open(store), cluster[0], plan_file)
    from serving.rollout.cluster.actions import preview_plan

    return preview_plan(cluster[0], _settings(cluster[1], plan_file))


def _pause(store: str, cluster: Any) -> bool:
    if cluster[1] is None:
        return on_endpoint.ask(_open(store), "pause")
    from serving.rollout.cluster.actions import reader, request

    api, names, _ = reader(cluster[0], _settings(cluster[1]))
    return request(api, names, "pause")


def _steer(action: str, store: str, cluster: Any, as_json: bool) -> None:
    if cluster[1] is None:
        _end(on_endpoint.steer(_open(store), action, _me(), _say(as_json)), as_json)
        return
    from serving.rollout.cluster.actions import go_on, reader, request

    name, settings = cluster[0], _settings(cluster[1])
    api, names, book = reader(name, settings)
    if request(api, names, action):
        _end(book.read(), as_json)
        return
    say = _say(as_json)
    say("no process runs this rollout: taking it over")
    _end(go_on(_open(store), name, settings, run_id=_me(), say=say), as_json)


def _open(store: str) -> Any:
    from components.core.stores import open_store

    return open_store(store)


def _settings(options: dict[str, str], plan_file: Path | None = None) -> Any:
    from serving.rollout.cluster.settings import ClusterSettings
    from serving.rollout.cluster.site import parse_plan

    plan = parse_plan(plan_file.read_text(), str(plan_file)) if plan_file else None
    return ClusterSettings.model_validate({**options, "plan": plan})


def _newest(store: Any) -> str:
    from components.core.errors import UsageError
    from components.core.release import list_releases

    releases = list_releases(store)
    if not releases:
        raise UsageError("the store has no release", where=store.uri, fix="Make one with: dual run --data SOURCE --store STORE")
    return releases[-1].id


def _me() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _say(as_json: bool) -> Callable[[str], None]:
    return lambda text: click.echo(text, err=as_json)


def _end(state: Any, as_json: bool) -> None:
    if as_json:
        print_json(state.model_dump(mode="json", by_alias=True) if state else None)
    elif state is None:
        click.echo("no rollout is in progress: nothing to do")
    else:
        click.echo(f"{state.phase}: release {state.candidate.release}" + (f" ({state.reason})" if state.reason else ""))
