"""dual publish: which devices use which model."""

import getpass
import socket
from typing import Any

import click

from pipelines.cli.options import json_option, print_json, store_option
from pipelines.cli.publish_firebase import firebase_ml, migrate, remote_config

_reason = click.option("--reason", default="", help="Kept in the history.")
_channel = click.option("--channel", default="stable", show_default=True, help="Another one, such as beta, moves mobile models alone.")


@click.group("publish")
def command() -> None:
    """Start, widen, pause and undo what devices read, see its history, and remove what nobody needs.

    The channel names a pair. Its cloud half is everybody's; its mobile half may go to a share of the devices first, the others use what
    everybody had before. The channel is signed: see `dual keys`. Testers may follow another channel (--channel beta), which moves its
    mobile half alone.
    """


for each in (firebase_ml, remote_config, migrate):
    command.add_command(each)


@command.command("start")
@click.argument("release", required=False)
@store_option
@_channel
@click.option("--percent", type=float, default=100.0, show_default=True, help="Share of the devices that take the mobile half at first.")
@json_option
def start(release: str | None, store: str, channel: str, percent: float, as_json: bool) -> None:
    """Publish RELEASE (default: the newest of the store). Servers that follow the store take its cloud half at once."""
    from components.core.staging import basis_points
    from components.publish_mobile.settings import PublishMobileSettings
    from components.publish_mobile.signing import find_signing
    from components.publish_mobile.start import start as publish

    limits = PublishMobileSettings.model_validate({})
    opened = _open(store)
    signing = find_signing(opened)
    points = basis_points(percent)
    published = publish(opened, release or "", points, run_id=_me(), limits=limits, signing=signing, channel=channel)
    if not signing.signers:
        click.echo(f"warning: the channel is {signing.note}", err=True)
    _say(published, as_json)


@command.command("status")
@store_option
@_channel
@json_option
def status(store: str, channel: str, as_json: bool) -> None:
    """Say what is published to whom, and who signed it."""
    from components.publish_mobile.status import status_of

    found = status_of(_open(store), channel=channel)
    if as_json:
        print_json(found.to_json())
    else:
        click.echo("\n".join(found.lines()))


@command.command("widen")
@click.argument("percent", type=float)
@store_option
@_channel
@_reason
@json_option
def widen(percent: float, store: str, channel: str, reason: str, as_json: bool) -> None:
    """Give the mobile half to PERCENT of the devices; who has it keeps it."""
    from components.core.staging import basis_points
    from components.publish_mobile.steer import widen as go_on

    _say(go_on(_open(store), basis_points(percent), reason=reason, channel=channel), as_json)


@command.command("pause")
@store_option
@_channel
@_reason
@json_option
def pause(store: str, channel: str, reason: str, as_json: bool) -> None:
    """Give the mobile half to nobody new; who has it keeps it."""
    from components.publish_mobile.steer import pause as stop

    _say(stop(_open(store), reason=reason, channel=channel), as_json)


@command.command("resume")
@store_option
@_channel
@_reason
@json_option
def resume(store: str, channel: str, reason: str, as_json: bool) -> None:
    """Go on after a pause."""
    from components.publish_mobile.steer import resume as go_on

    _say(go_on(_open(store), reason=reason, channel=channel), as_json)


@command.command("sign")
@store_option
@_channel
@_reason
@json_option
def sign(store: str, channel: str, reason: str, as_json: bool) -> None:
    """Sign what is current once more: after a rotation of keys, or to bring a store of an older version up to date."""
    from components.publish_mobile.steer import sign as again

    _say(again(_open(store), reason=reason, channel=channel), as_json)


@command.command("undo")
@store_option
@_channel
@_reason
@json_option
def undo(store: str, channel: str, reason: str, as_json: bool) -> None:
    """Take the pair back from everybody: the same as `dual undo`. In another channel than stable, its mobile model."""
    from components.core.channel import STABLE
    from components.publish_mobile.publication import undo_publication
    from pipelines.cli.undo import go_back

    if channel == STABLE:
        go_back(store, reason, as_json)
    else:
        _say(undo_publication(_open(store), reason, channel=channel)[0], as_json)


@command.command("history")
@store_option
@_channel
@json_option
def history(store: str, channel: str, as_json: bool) -> None:
    """List publications, changes and undos, newest last; with --json one object a line."""
    from components.core.channel import read_channel
    from components.publish_mobile.history import committed, read_history

    opened = _open(store)
    entries, found = read_history(opened, channel), read_channel(opened, channel)
    chain = committed(entries, found[0] if found else None)
    for entry in entries:
        effective = entry in chain
        if as_json:
            print_json({**entry.model_dump(mode="json", by_alias=True), "took_effect": effective})
        else:
            mark = "" if effective else "  (never took effect)"
            share = f"{entry.staging.percent()}{' paused' if entry.staging.paused else ''}"
            click.echo(f"{entry.sequence:>5}  {entry.at}  {entry.action:<7}  {entry.release}  {share:<8}  {entry.reason}{mark}".rstrip())


@command.command("gc")
@store_option
@click.option("--keep", type=click.IntRange(min=1), default=5, show_default=True, help="Keep what the last so many publications named.")
@click.option("--days", type=click.FloatRange(min=0), default=7.0, show_default=True, help="Keep what was current within so many days.")
@click.option("--delete", is_flag=True, help="Remove it. Without this nothing is changed.")
@json_option
def gc(store: str, keep: int, days: float, delete: bool, as_json: bool) -> None:
    """Show, or remove, downloads that no channel, fallback, pending publication, running rollout or recent history names.

    Releases are never removed: one that is published again brings its files back.
    """
    from components.publish_mobile.garbage import Window, collect_garbage, find_garbage

    opened, window = _open(store), Window(keep, days)
    garbage = collect_garbage(opened, window) if delete else find_garbage(opened, window)
    if as_json:
        print_json({"removed": delete, "names": garbage.names(), "kept": garbage.kept})
        return
    for release, why in garbage.kept.items():
        click.echo(f"keep    {release}  {why}")
    for name in garbage.names():
        click.echo(f"{'removed' if delete else 'garbage'} {name}")
    if garbage.names() and not delete:
        click.echo("Nothing was changed. Remove it with: dual publish gc --delete")


def _open(store: str) -> Any:
    from components.core.stores import open_store

    return open_store(store)


def _me() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _say(channel: Any, as_json: bool) -> None:
    if as_json:
        print_json(channel.model_dump(mode="json", by_alias=True))
        return
    rest = f"; the others use {channel.fallback.release}" if channel.fallback else ""
    paused = ", paused" if channel.staging.paused else ""
    share = f"{channel.staging.percent()} of the devices{paused}{rest}"
    click.echo(f"{channel.channel}: sequence {channel.sequence}, release {channel.release} for {share}")
