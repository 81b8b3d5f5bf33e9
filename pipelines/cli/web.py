"""dual web: a page that runs the published model in a browser."""

from pathlib import Path
from typing import Any

import click

from pipelines.cli.options import store_option


@click.group("web", invoke_without_command=True)
@store_option
@click.option("--channel", default="stable", show_default=True, help="Channel that the page follows.")
@click.option(
    "--server", default="", metavar="URL", help="Server of the cloud model, such as dual serve. Default: the phone's model alone."
)
@click.option("--name", default="classifier", show_default=True, help="The model's name on that server.")
@click.option("--timeout", type=click.FloatRange(min=0.01), default=2.0, show_default=True, help="Seconds that the server is given.")
@click.option(
    "--keys", type=click.Path(path_type=Path, dir_okay=False), help="Public keyring that the channel must be signed by. Default: yours."
)
@click.option("--tester", is_flag=True, help="Take every candidate, whatever the staged percentage.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8600, show_default=True, help="0 takes a free one.")
@click.option("--vendor", type=click.Path(path_type=Path, file_okay=False), help="Folder of LiteRT.js. Default: the user's cache.")
@click.option("--offline", is_flag=True, help="Fetch nothing: LiteRT.js must be there.")
@click.pass_context
def command(context: click.Context, store: str, host: str, port: int, vendor: Path | None, offline: bool, **asked: Any) -> None:
    """Serve a page that follows a channel: verifies it, runs the phone's model on your images, asks the cloud when unsure; Ctrl-C ends it.

    \b
      dual serve --store ./store &
      dual web --store ./store --server http://127.0.0.1:8501

    Browsers give the camera and the signature check to https:// and localhost only.
    """  # noqa: D301 - click wants the real backspace character
    if context.invoked_subcommand is None:
        _serve(store, host, port, vendor, offline=offline, **asked)


@command.command("vendor")
@click.option("--to", "folder", type=click.Path(path_type=Path, file_okay=False), help="Default: the user's cache.")
@click.option("--registry", default="", metavar="URL", help="npm's, or a mirror of it. Default: $npm_config_registry, else npm's own.")
def vendor(folder: Path | None, registry: str) -> None:
    """Fetch LiteRT.js from npm, pinned and checked: at build, or before a machine goes off the network."""
    from serving.web.vendor import vendored

    click.echo(str(vendored(folder, registry=registry)))


def _serve(store: str, host: str, port: int, vendor: Path | None, *, offline: bool, keys: Path | None, **asked: Any) -> None:
    from components.core.errors import missing_extra
    from components.core.keyring import read_keyring
    from components.core.stores import open_store
    from components.publish_mobile.signing import own_keyring

    try:
        from serving.web.serve import serve_web
        from serving.web.server import Web
    except ModuleNotFoundError as error:
        raise missing_extra("server", error.name or "starlette") from None

    keyring = read_keyring(keys) if keys else own_keyring()
    if not keyring.keys:
        click.echo("Warning: no key is trusted, so the page will refuse every channel: give a keyring with --keys", err=True)
    web = Web(store=open_store(store), keyring=keyring, vendor=_litert(vendor, offline), **asked)
    serve_web(web, host, port, lambda address: click.echo(f"{address}  (Ctrl-C ends it)"))


def _litert(folder: Path | None, offline: bool) -> Path:
    from components.core.errors import UsageError
    from serving.web.vendor import default_folder, is_vendored, vendored

    if offline and not is_vendored(folder or default_folder()):
        fix = "Fetch it where there is a network: dual web vendor --to FOLDER, and give it with --vendor"
        raise UsageError("LiteRT.js is not there", where=str(folder or default_folder()), fix=fix)
    return vendored(folder)
