"""dual undo: back to the previously promoted release."""

import click

from pipelines.cli.options import json_option, print_json, store_option


@click.command("undo")
@store_option
@click.option("--reason", default="", help="Kept in the history.")
@json_option
def command(store: str, reason: str, as_json: bool) -> None:
    """Go back to the previously promoted release, both halves; running servers follow."""
    from components.core.stores import open_store
    from serving.rollout.undo import undo_release

    channel = undo_release(open_store(store), reason)
    if as_json:
        print_json(channel.model_dump(mode="json", by_alias=True))
    else:
        click.echo(f"stable is release {channel.release} again (sequence {channel.sequence})")
