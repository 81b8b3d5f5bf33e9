"""dual demo: the newcomer's first run."""

import click

from pipelines.cli.options import settings_options, store_option


@click.command("demo")
@store_option
@settings_options
def command(store: str, profile: str, config: object, overrides: tuple[str, ...]) -> None:
    """The main job on the Flowers photographs, or on drawn flowers where the network refuses.

    `drawn` needs no network: an embedded generator draws the five flowers. The report says which data it was.
    """
    from pathlib import Path

    from components.ingest.download import FLOWERS_URL
    from pipelines.cli.run import execute
    from pipelines.settings import load_settings

    settings = load_settings(profile, Path(str(config)) if config else None, overrides)
    data = choose_data(FLOWERS_URL)
    outcome = execute(data, store, settings, quiet=False)
    raise SystemExit(outcome.exit_code)


def choose_data(url: str) -> str:
    """`flowers` if the archive is cached or its server answers, else `drawn`; says which and why in one line."""
    from components.core.download import can_reach
    from components.ingest.download import flowers_cached

    if flowers_cached() or can_reach(url):
        click.echo("Data: flowers (the published photographs).")
        return "flowers"
    click.echo("Data: the network refuses the Flowers archive, so this run uses 'drawn': flowers drawn by an embedded generator.")
    click.echo("      The report marks it. With a network, or your own folder: dual run --data flowers|FOLDER --store STORE")
    return "drawn"
