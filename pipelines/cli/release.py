"""dual release: what was shipped."""

import click

from pipelines.cli.options import json_option, print_json, store_option


@click.group("release")
def command() -> None:
    """List, show, verify and compare releases."""


@command.command("list")
@store_option
@json_option
def list_(store: str, as_json: bool) -> None:
    """Every release of the store; the promoted one is marked."""
    from components.core.channel import read_channel
    from components.core.release import list_releases
    from components.core.stores import open_store

    opened = open_store(store)
    found = read_channel(opened, "stable")
    stable = found[0].release if found else ""
    for release in list_releases(opened):
        halves = {"cloud": release.evaluations.cloud, "mobile": release.evaluations.mobile}
        metrics = {name: half.metrics.get("accuracy", float("nan")) for name, half in halves.items()}
        if as_json:
            print_json({"id": release.id, "created": release.created, "stable": release.id == stable, "accuracy": metrics})
        else:
            mark = "*" if release.id == stable else " "
            scores = ", ".join(f"{name} {score:.3f}" for name, score in metrics.items())
            click.echo(f"{mark} {release.id}  {release.created}  {scores}")


@command.command("show")
@click.argument("release_id", required=False)
@store_option
def show(release_id: str | None, store: str) -> None:
    """Print release.json (default: the promoted release)."""
    from components.core.errors import UsageError
    from components.core.release import read_baseline, read_release
    from components.core.stores import open_store

    opened = open_store(store)
    release = read_release(opened, release_id) if release_id else read_baseline(opened)
    if release is None:
        raise UsageError("nothing is promoted yet", where=store, fix="Ship a release with: dual run --data SOURCE --store STORE")
    click.echo(release.model_dump_json(by_alias=True, indent=2))


@command.command("verify")
@click.argument("release_id", required=False)
@store_option
@json_option
def verify(release_id: str | None, store: str, as_json: bool) -> None:
    """Check every digest of the promoted release and its channel (or of RELEASE_ID); exit 1 on any difference."""
    from components.core.release import verify_release
    from components.core.stores import open_store
    from components.publish_mobile.verify import verify_store

    opened = open_store(store)
    differences = verify_release(opened, release_id) if release_id else verify_store(opened)
    if as_json:
        print_json({"ok": not differences, "differences": differences})
    else:
        click.echo("\n".join(differences) or "ok: every digest matches")
    raise SystemExit(1 if differences else 0)


@command.command("diff")
@click.argument("before")
@click.argument("after")
@store_option
@json_option
def diff(before: str, after: str, store: str, as_json: bool) -> None:
    """Say what changed between two releases: data, labels, metrics, files, policy."""
    from components.core.release import diff_releases, read_release
    from components.core.stores import open_store

    opened = open_store(store)
    changes = diff_releases(read_release(opened, before), read_release(opened, after))
    if as_json:
        print_json(changes)
    else:
        click.echo("\n".join(f"{key}: {left} → {right}" for key, left, right in changes) or "no difference")


@command.command("copy")
@click.argument("release_id", required=False)
@click.option("--from", "source", required=True, metavar="URI", help="The store that has it.")
@click.option("--to", "target", required=True, metavar="URI", help="The store that is to have it.")
@json_option
def copy(release_id: str | None, source: str, target: str, as_json: bool) -> None:
    """Copy RELEASE_ID (default: every release) from one store to another, each file checked; publishes nothing."""
    from components.core.release import list_releases
    from components.core.release_copy import copy_release
    from components.core.stores import open_store

    opened, other = open_store(source), open_store(target)
    ids = [release_id] if release_id else [release.id for release in list_releases(opened)]
    copied = [copy_release(opened, other, each).id for each in ids]
    if as_json:
        print_json(copied)
    else:
        click.echo("\n".join(f"{each}: copied to {other.uri}" for each in copied) or "the store has no release")
