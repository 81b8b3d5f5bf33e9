"""dual data: look at a source before a run, or draw one."""

from pathlib import Path
from typing import Any

import click

from pipelines.cli.options import json_option, print_json, settings_options


@click.group("data")
def command() -> None:
    """Look at a data source before a run (check), or draw one (draw)."""


@command.command("check")
@click.argument("source")
@settings_options
@json_option
def check(source: str, profile: str, config: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Say what ingest would take from SOURCE, and what is wrong with it; writes nothing. Exit 4 if a run would refuse it."""
    from components.ingest.ingest import check_data
    from pipelines.settings import load_settings

    found = check_data(source, load_settings(profile, config, overrides).model_dump_json(), lambda text: click.echo(text, err=True))
    if as_json:
        print_json({"labels": sorted(found.counts), **found.model_dump(mode="json", by_alias=True)})
    else:
        click.echo("\n".join(_lines(found)))


def _lines(found: Any) -> list[str]:
    """Counts, then every kind of finding with its first names."""
    lines = [f"{found.read} files ({found.layout})"]
    for label, counts in sorted(found.counts.items()):
        lines.append(f"  {label:<20} " + "  ".join(f"{split} {count}" for split, count in counts.items()))
    for kind, count in found.problem_counts().items():
        findings = found.of_kind(kind)
        names = ", ".join(finding.key for finding in findings[:5]) + (f" and {count - 5} more" if count > 5 else "")
        lines.append(f"{kind}: {count} {findings[0].action}: {names}")
    return lines + [*found.notes] + ([] if found.problem_counts() else ["no problems found"])


@command.command("draw")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--images-per-class", type=click.IntRange(1), help="How many pictures of each flower.")
@click.option("--size", type=click.IntRange(32, 1024), help="Side of a picture in pixels.")
@click.option("--difficulty", type=click.FloatRange(0, 1), help="0 plain … 1 hard (background, light, blur, occlusion).")
@click.option("--seed", type=click.IntRange(0), help="Same seed, same pictures.")
def draw(folder: Path, **options: int | float | None) -> None:
    """Draw the five flowers into class folders below FOLDER."""
    from components.ingest.drawn import DrawnSettings, draw_dataset

    settings = DrawnSettings.model_validate({name: value for name, value in options.items() if value is not None})
    draw_dataset(folder, settings)
    click.echo(f"{folder}: {settings.images_per_class} pictures of each of 5 flowers, {settings.size} px")
