"""dual batch: a release answers for every image of a folder or a bucket."""

from pathlib import Path

import click

from pipelines.cli.options import json_option, store_option


@click.command("batch")
@click.argument("data")
@store_option
@click.option("--release", default="", metavar="ID", help="Which release answers. Default: the promoted one.")
@click.option("--model", "which", type=click.Choice(["cloud", "mobile", "layered"]), default="layered", show_default=True)
@click.option(
    "--batch-size", type=click.IntRange(1, 4096), default=32, show_default=True, help="Images that a model is asked about at a time."
)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), default="predictions.jsonl", show_default=True)
@json_option
def command(data: str, store: str, release: str, which: str, batch_size: int, output: Path, as_json: bool) -> None:
    """Classify every JPEG and PNG below DATA, a folder, gs:// or s3:// prefix: a line of JSON for each, in the order of the names.

    \b
      dual batch photos/ --store ./store -o answers.jsonl
      dual compile --pipeline dual-batch --target kubeflow … # the same over many pods

    An image that can't be read gets a line that says why; exit code 4 if none can. Both models are fetched from the store and checked
    against the release's digests; layered asks the cloud model where the release's policy would.
    """  # noqa: D301 - click wants the real backspace character
    from components.core.stores import open_store
    from components.predict.predict import choose_release, parse_asked, predict_here

    opened = open_store(store)
    asked = parse_asked(data, choose_release(opened, release).id, which, batch_size)
    summary = predict_here(opened, asked, output, lambda text: click.echo(text, err=True))
    if summary.unreadable:
        click.echo(f"Warning: {summary.unreadable:,} images could not be read; their lines in {output} say why", err=True)
    if as_json:
        click.echo(summary.model_dump_json(by_alias=True))
        return
    click.echo(f"{output}: {summary.answered:,} of {summary.images:,} images answered by release {summary.release}")
    for label, number in summary.labels.items():
        click.echo(f"  {label:<20} {number:>8,}  {number / summary.answered:6.1%}")
    click.echo(f"  asked: {', '.join(f'{model} {number:,}' for model, number in summary.models.items())}")
