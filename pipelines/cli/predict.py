"""dual predict: ask the promoted pair."""

import json
from pathlib import Path
from typing import Any

import click

from pipelines.cli.options import json_option, store_option


@click.command("predict")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@store_option
@click.option("--model", "which", type=click.Choice(["cloud", "mobile", "layered"]), default="layered", show_default=True)
@click.option("--channel", default="stable", show_default=True, help="Channel that the mobile model is taken from.")
@click.option("--server", default="", metavar="URL", help="Ask this server's cloud model. Default: load it into this process.")
@click.option("--name", default="classifier", show_default=True, help="The model's name on that server.")
@click.option("--timeout", type=click.FloatRange(min=0.01), default=2.0, show_default=True, help="Seconds that the server is given.")
@click.option(
    "--keys", type=click.Path(path_type=Path, dir_okay=False), help="Public keyring that the channel must be signed by. Default: yours."
)
@click.option("--unsigned", is_flag=True, help="Accept a channel that nobody signed.")
@json_option
def command(images: tuple[Path, ...], store: str, which: str, as_json: bool, keys: Path | None, **ways: Any) -> None:
    """Classify IMAGES with the promoted cloud model, mobile model, or both layered (the phone asks the cloud when unsure).

    The mobile model is taken as a device takes it: signature, digest, contract and golden answers are checked. With --json one object a
    line: image, label, score, model (the one that answered), why, release. An image that can't be read is named on standard error, the
    others are still answered, and the exit code is 4.
    """
    from components.core.errors import DataError
    from serving.client.predict import Ways, open_predictor

    reached = Ways(keyring=_keyring(keys), warn=lambda text: click.echo(f"Warning: {text}", err=True), **ways)
    predictor = open_predictor(store, which, reached)
    unreadable = 0
    for image in images:
        try:
            answer = predictor.predict(image)
        except DataError as error:
            click.echo(f"Error: {error}", err=True)
            unreadable += 1
            continue
        _print(image, answer, as_json)
    if unreadable:
        raise SystemExit(DataError.exit_code)


def _keyring(path: Path | None) -> Any:
    from components.core.keyring import read_keyring
    from components.publish_mobile.signing import own_keyring

    return read_keyring(path) if path else own_keyring()


def _print(image: Path, answer: Any, as_json: bool) -> None:
    row = {"image": str(image), "label": answer.label, "score": round(answer.score, 6), "model": answer.model}
    if as_json:
        click.echo(json.dumps(row | {"why": answer.why, "release": answer.release}, ensure_ascii=False))
    else:
        click.echo(f"{image}: {answer.label} {answer.score:.3f} ({answer.model}: {answer.why})")
