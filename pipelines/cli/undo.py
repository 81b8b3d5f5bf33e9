"""dual undo: back to the previously promoted release."""

import getpass
import socket
from typing import Any

import click

from pipelines.cli.options import json_option, print_json, store_option


@click.command("undo")
@store_option
@click.option("--reason", default="", help="Kept in the history.")
@json_option
def command(store: str, reason: str, as_json: bool) -> None:
    """Go back to the previously promoted release, both halves; running servers, the cluster or the endpoint that serve it follow."""
    go_back(store, reason, as_json)


def go_back(store: str, reason: str, as_json: bool) -> None:
    """Undo, wherever the cloud half is served, and say what was done."""
    from components.core.stores import open_store
    from serving.rollout.undo import undo_release

    opened = open_store(store)
    if (where := _cluster(opened)) is not None:
        _undo_on_cluster(opened, where, reason, as_json)
        return
    if _is_on_endpoint(opened):
        _undo_on_endpoint(opened, reason, as_json)
        return
    undone = undo_release(opened, reason)
    if as_json:
        print_json(undone.channel.model_dump(mode="json", by_alias=True))
        return
    click.echo(f"stable is release {undone.channel.release} again (sequence {undone.channel.sequence}); left {undone.left}")
    click.echo(f"{undone.servers} running server(s) follow already")
    for problem in undone.problems:
        click.echo(f"not yet: {problem}")


def _cluster(store: Any) -> Any:
    from components.core.channel import read_channel
    from serving.rollout.cluster.whereabouts import recall

    channel = read_channel(store)
    return recall(store, channel[0].release) if channel else None


def _is_on_endpoint(store: Any) -> bool:
    from components.core.channel import read_channel
    from serving.rollout.endpoint.state import served_release

    channel = read_channel(store)
    return channel is not None and served_release(store) == channel[0].release


def _undo_on_endpoint(store: Any, reason: str, as_json: bool) -> None:
    from serving.rollout.endpoint.actions import undo

    def say(text: str) -> None:
        click.echo(text, err=as_json)

    say("the cloud half is served on a Vertex AI endpoint")
    undo(store, run_id=_me(), reason=reason, say=say)
    _show_channel(store, as_json)


def _undo_on_cluster(store: Any, where: Any, reason: str, as_json: bool) -> None:
    from serving.rollout.cluster.actions import undo

    def say(text: str) -> None:
        click.echo(text, err=as_json)

    say(f"the cloud half is served on Kubernetes, namespace {where.namespace}")
    undo(store, where.name, where.settings(), run_id=_me(), reason=reason, say=say)
    _show_channel(store, as_json)


def _me() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _show_channel(store: Any, as_json: bool) -> None:
    from components.core.channel import read_channel

    channel = read_channel(store)
    if as_json and channel:
        print_json(channel[0].model_dump(mode="json", by_alias=True))
    elif channel:
        click.echo(f"stable is release {channel[0].release} (sequence {channel[0].sequence})")
