"""dual predict: ask the promoted pair."""

import json
from pathlib import Path

import click

from pipelines.cli.options import json_option, store_option


@click.command("predict")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@store_option
@click.option("--model", "which", type=click.Choice(["cloud", "mobile", "layered"]), default="layered", show_default=True)
@json_option
def command(images: tuple[Path, ...], store: str, which: str, as_json: bool) -> None:
    """Classify IMAGES with the promoted cloud model, mobile model, or both layered (the phone asks the cloud when unsure).

    With --json one object a line: image, label, score, model (the one that answered). An image that can't be read
    is named on standard error, the others are still answered, and the exit code is 4.
    """
    from components.core.errors import DataError
    from serving.client.predict import open_predictor

    predictor = open_predictor(store, which)
    unreadable = 0
    for image in images:
        try:
            answer = predictor.predict(image)
        except DataError as error:
            click.echo(f"Error: {error}", err=True)
            unreadable += 1
            continue
        row = {"image": str(image), "label": answer.label, "score": round(answer.score, 6), "model": answer.model}
        click.echo(json.dumps(row, ensure_ascii=False) if as_json else f"{image}: {answer.label} {answer.score:.3f} ({answer.model})")
    if unreadable:
        raise SystemExit(DataError.exit_code)
