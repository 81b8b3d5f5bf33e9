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

    undone = undo_release(open_store(store), reason)
    if as_json:
        print_json(undone.channel.model_dump(mode="json", by_alias=True))
        return
    click.echo(f"stable is release {undone.channel.release} again (sequence {undone.channel.sequence}); left {undone.left}")
    click.echo(f"{undone.servers} running server(s) follow already")
    for problem in undone.problems:
        click.echo(f"not yet: {problem}")
