"""dual images: which container images a site needs, and how they get there."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.cli.options import json_option, print_json

if TYPE_CHECKING:
    from pipelines.mirror.mirror import Mirrored


@click.group("images")
def command() -> None:
    """List the container images that a site needs, and copy them to its own registry or over an air gap."""


sources_argument = click.argument("sources", nargs=-1, metavar="SOURCE...")
builds_option = click.option(
    "--images", "builds", type=click.Path(path_type=Path, dir_okay=False), help="build.json of skaffold: where our own images are."
)


@command.command("list", short_help="Every image that pipelines, manifests and overlays name.")
@sources_argument
@builds_option
@json_option
def list_(sources: tuple[str, ...], builds: Path | None, as_json: bool) -> None:
    """Every image that SOURCE... name: compiled pipelines, rendered manifests (- for standard input), folders with a kustomization.

    \b
    dual images list dual.yaml manifests/overlays/onprem --images build.json
    kubectl kustomize manifests/overlays/gke | dual images list -
    """  # noqa: D301 - click wants the real backspace character
    from pipelines.mirror.mirror import needed_images

    for each in needed_images(sources, builds):
        if as_json:
            print_json({"image": each.image, "name": each.name, "users": each.users})
        else:
            click.echo(f"{each.image}\n    {', '.join(each.users)}")


@command.command("mirror", short_help="Copy them to another registry, or to and from a file.")
@sources_argument
@builds_option
@click.option("--to", "target", required=True, metavar="PLACE", help="registry.example.com/team, oci:FOLDER or oci-archive:FILE.tar.")
@click.option("--from", "archive", metavar="LAYOUT", help="oci:FOLDER or oci-archive:FILE.tar to copy from, instead of SOURCE...")
@click.option("--map", "map_file", type=click.Path(path_type=Path, dir_okay=False), help="Write where each image is now, as a build.json.")
@click.option("--platform", default="", metavar="OS/ARCH", help="Copy only this one of images for several (default: all of them).")
@click.option("--plain-http", "plain", multiple=True, metavar="HOST[:PORT]", help="A registry without TLS; may be repeated.")
@json_option
def mirror(
    sources: tuple[str, ...],
    builds: Path | None,
    target: str,
    archive: str | None,
    map_file: Path | None,
    platform: str,
    plain: tuple[str, ...],
    as_json: bool,
) -> None:
    """Copy the images of SOURCE... (as for list) to another place, digest for digest; what is there is not copied again.

    \b
    dual images mirror dual.yaml manifests/overlays/onprem --images build.json --to registry.example.com/dual --map mirrored.json
    dual images mirror dual.yaml --images build.json --to oci-archive:images.tar          # carry the file, then there:
    dual images mirror --from oci-archive:images.tar --to registry.example.com/dual --map mirrored.json
    dual compile --target kubeflow --images mirrored.json -o dual.yaml
    """  # noqa: D301 - click wants the real backspace character
    from components.core.meter import tell
    from pipelines.mirror.mirror import mirror_images, write_map
    from pipelines.mirror.place import Registries

    done = mirror_images(sources, builds, archive, target, Registries(plain), platform=platform, say=tell)
    if map_file is not None:
        write_map(done, map_file)
    for each in done:
        _print(each, as_json)


def _print(each: "Mirrored", as_json: bool) -> None:
    if as_json:
        copied = each.copied
        facts = {"source": str(copied.source), "image": str(copied.image), "size": copied.size, "moved": copied.moved}
        print_json({"name": each.name, **facts})
    else:
        click.echo(str(each.copied.image))
