"""dual keys: the keys that sign channels."""

from typing import Any

import click

from pipelines.cli.options import json_option, print_json


@click.group("keys")
def command() -> None:
    """Make, rotate and list the Ed25519 keys that sign channels.

    They lie in $DUAL_KEYS, by default `keys` in the user's configuration folder: one .pem a key (private, mode 0600), and keyring.json
    (public). A publisher elsewhere gets the content of the .pem files as a secret: in DUAL_SIGNING_KEY, or in files that
    DUAL_SIGNING_KEY_FILE names.
    """


@command.command("new")
@click.option("--name", default="", help="For people: what the key is for.")
@click.option("--days", type=click.IntRange(min=1), help="It signs for so many days. Default: until it is rotated.")
@json_option
def new(name: str, days: int | None, as_json: bool) -> None:
    """Make a key that signs from now on."""
    from components.publish_mobile.key_folder import KeyFolder

    folder = KeyFolder()
    key = folder.new(name, days)
    if as_json:
        print_json(key.model_dump(mode="json"))
        return
    click.echo(f"key {key.key_id}: {folder.folder / key.key_id}.pem (private: give it to the publisher as a secret, and keep a copy)")
    click.echo("Apps trust it once they carry the public keyring: dual keys list --json > keyring.json")


@command.command("rotate")
@click.option("--overlap-days", type=click.IntRange(min=0), default=90, show_default=True, help="How long the old keys go on signing.")
@click.option("--name", default="", help="For people. Default: the old key's.")
@json_option
def rotate(overlap_days: int, name: str, as_json: bool) -> None:
    """Make a new key; the old ones sign beside it until their end."""
    from components.publish_mobile.key_folder import KeyFolder

    new_key, old = KeyFolder().rotate(overlap_days, name)
    if as_json:
        print_json({"new": new_key.model_dump(mode="json"), "old": [key.model_dump(mode="json") for key in old]})
        return
    click.echo(f"new key {new_key.key_id}")
    for key in old:
        click.echo(f"old key {key.key_id} signs until {key.not_after}")
    click.echo("Next: give both to the publisher, run `dual publish sign`, and release apps with the new keyring before the old key ends.")


@command.command("list")
@click.option("--local", is_flag=True, help="Also the key that was made by itself and signs nothing but stores in local folders.")
@json_option
def show(local: bool, as_json: bool) -> None:
    """List the keys; with --json the public keyring, as apps carry it."""
    from components.publish_mobile.key_folder import KeyFolder
    from components.publish_mobile.signing import local_keys

    folders = [(KeyFolder(), ""), *([(local_keys(), "  local stores only")] if local or not as_json else [])]
    if as_json:
        print_json(_keyring([folder for folder, _ in folders]))
        return
    rows = [_row(folder, key, mark) for folder, mark in folders for key in folder.keyring().keys]
    click.echo("\n".join(rows) or f"no keys in {folders[0][0].folder}: make one with `dual keys new`")


def _keyring(folders: list[Any]) -> Any:
    from components.core.keyring import Keyring

    keys = [key for folder in folders for key in folder.keyring().keys]
    return Keyring(keys=keys).model_dump(mode="json", by_alias=True)


def _row(folder: Any, key: Any, mark: str) -> str:
    from components.publish_mobile.key_folder import stamp

    private = "private half here" if (folder.folder / f"{key.key_id}.pem").is_file() else "public half only"
    state = f"{'ended' if key.is_over(stamp()) else 'until'} {key.not_after}" if key.not_after else "no end"
    return f"{key.key_id}  since {key.created}  {state}  {private}{mark}  {key.name}".rstrip()
