"""dual settings: what a run would start with."""

from pathlib import Path

import click

from pipelines.cli.options import json_option, print_json, settings_options


@click.command("settings")
@settings_options
@json_option
def command(profile: str, config: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print the settings of a run as it would start, after profile, file, environment and flags."""
    import yaml

    from pipelines.settings import load_settings

    values = load_settings(profile, config, overrides).model_dump(mode="json")
    if as_json:
        print_json(values)
    else:
        click.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), nl=False)
