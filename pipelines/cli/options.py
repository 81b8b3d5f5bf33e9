"""Options that several commands share, spelled once."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

store_option = click.option(
    "--store", default="dual-store", show_default=True, metavar="URI", help="Folder, gs://bucket/prefix or s3://bucket/prefix."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--profile, --config and --set, which together make the run's settings."""
    options = [
        click.option("--profile", default="quick", show_default=True, help="quick, standard, thorough, or a .yaml file of your own."),
        click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="YAML file laid over the profile."),
        click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="One setting, for example train_cloud.image_size=96."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def print_json(value: Any) -> None:
    """One JSON value on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
