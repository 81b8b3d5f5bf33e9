"""dual publish firebase-ml, remote-config and migrate: Firebase beside Cloud Storage."""

from typing import Any

import click

from pipelines.cli.options import json_option, print_json, store_option

_project = click.option("--project", required=True, help="Firebase project id.")


@click.command("firebase-ml")
@store_option
@_project
@click.option("--name", default="classifier", show_default=True, help="Display name of the hosted model.")
@json_option
def firebase_ml(store: str, project: str, name: str, as_json: bool) -> None:
    """Let Firebase ML host what everybody may use now. It is shut down on 2027-06-15: see migrate."""
    from dataclasses import asdict

    from components.publish_mobile.firebase import NOTICE
    from components.publish_mobile.firebase_ml import host_model

    opened, channel = _published(store)
    hosted = host_model(opened, channel, project=project, name=name)
    click.echo(f"Warning: {NOTICE}.", err=True)
    if as_json:
        print_json(asdict(hosted))
    else:
        click.echo(f"{name}: release {hosted.release}, {'hosted now' if hosted.changed else 'hosted already'} (model {hosted.model_id})")


@click.command("remote-config")
@store_option
@_project
@click.option("--parameter", default="dual_channel", show_default=True, help="Name of the parameter.")
@json_option
def remote_config(store: str, project: str, parameter: str, as_json: bool) -> None:
    """Tell apps of the current sequence at once, by a Remote Config parameter."""
    from components.publish_mobile.remote_config import ring

    _, channel = _published(store)
    changed = ring(channel, project=project, parameter=parameter)
    if as_json:
        print_json({"sequence": channel.sequence, "changed": changed})
    else:
        click.echo(f"{parameter}: sequence {channel.sequence}" + ("" if changed else ", as it was"))


@click.command("migrate")
@store_option
@_project
@click.option("--name", default="", help="Display name of one hosted model. Default: all that are published.")
@json_option
def migrate(store: str, project: str, name: str, as_json: bool) -> None:
    """Copy models that Firebase ML hosts into the store, from where apps read them through Cloud Storage for Firebase."""
    from dataclasses import asdict

    from components.core.stores import open_store
    from components.publish_mobile.migrate import migrate_models

    found = migrate_models(open_store(store), project=project, name=name)
    if as_json:
        print_json([asdict(each) for each in found])
    else:
        click.echo("\n".join(_row(each) for each in found))
    if any(each.problem for each in found):
        raise SystemExit(1)


def _row(each: Any) -> str:
    if each.problem:
        return f"{each.name}: {each.problem}"
    known = f"; it is release {each.release}: dual publish start {each.release}" if each.release else ""
    return f"{each.name}: {each.file}{known}"


def _published(store: str) -> Any:
    from components.core.stores import open_store
    from components.publish_mobile.publication import require_channel

    opened = open_store(store)
    return opened, require_channel(opened, "there is nothing to pass on").channel
