"""dual compile: the pipeline as one YAML file for a backend."""

from pathlib import Path
from typing import Any

import click

from pipelines.cli.options import json_option, print_json

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("compile")
@click.option("--target", type=click.Choice(["local", "kubeflow", "vertex"]), help="Where it will run.")
@click.option(
    "--pipeline",
    type=click.Choice(["dual-deploy", "dual-batch"]),
    default="dual-deploy",
    show_default=True,
    help="dual-batch: batch prediction.",
)
@click.option("--images", type=_FILE, metavar="build.json", help="Pin images by digest: what skaffold build --file-output wrote.")
@click.option("--allow-tags", is_flag=True, help="Accept images in build.json that have a tag and no digest.")
@click.option("--registry", metavar="PREFIX", help="Instead of --images: every image is PREFIX/NAME:TAG.")
@click.option("--tag", metavar="TAG", help="With --registry: the tag.")
@click.option("--config", type=_FILE, metavar="FILE", help="What your site wants: pools, secrets, volumes … (docs/targets.md).")
@click.option("-o", "--output", type=_FILE, metavar="FILE", help="Where to write it (default: dual-TARGET.yaml).")
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if the copies in the repository are out of date.")
@click.option("--golden", is_flag=True, help="Write the copies in the repository anew.")
@json_option
def command(target: str | None, output: Path | None, check: bool, golden: bool, as_json: bool, pipeline: str, **asked: Any) -> None:
    """Compile the pipeline for a target, images pinned by digest, your site's settings in it.

    \b
      skaffold build --file-output build.json
      dual compile --target kubeflow --images build.json --config site.yaml -o pipeline.yaml

    The copies in pipelines/compiled/ show what a change does to the compiled pipeline: where one differs, the difference is printed.
    """  # noqa: D301 - click wants the real backspace character
    from components.core.errors import UsageError

    if check or golden:
        if output or any(asked.values()):
            raise UsageError("the copies have no images and no site", where="--check, --golden", fix="Give --target at most")
        raise SystemExit(_copies(target, write=golden))
    if target is None:
        raise UsageError("is missing", where="--target", fix="Give --target kubeflow, vertex or local; or --check, or --golden")
    file = f"{'dual' if pipeline == 'dual-deploy' else pipeline}-{target}.yaml"
    _compile(target, output or Path(file), as_json, pipeline=pipeline, **asked)


def _compile(
    target: str,
    output: Path,
    as_json: bool,
    *,
    images: Path | None,
    allow_tags: bool,
    registry: str | None,
    tag: str | None,
    config: Path | None,
    pipeline: str,
) -> None:
    from pipelines.compile import compile_pipeline
    from pipelines.compile_images import choose_images
    from pipelines.targets import make_target
    from pipelines.targets.site import load_site

    found = choose_images(images, registry, tag, allow_tags=allow_tags)
    compiled = compile_pipeline(make_target(target, load_site(config)), found, pipeline)
    _write(output, compiled.text)
    if config is None and found is None:
        _say_difference(target, pipeline, compiled.text)
    if compiled.unpinned and target != "local":
        names = ", ".join(compiled.unpinned)
        click.echo(f"warning: no cluster can pull {names}: pin images with --images build.json, or --registry and --tag", err=True)
    if as_json:
        print_json({"target": target, "file": str(output), "images": compiled.images, "unpinned": compiled.unpinned})
    else:
        pinned = "".join(f"\n  {name} → {reference}" for name, reference in compiled.images.items())
        click.echo(f"{output}: the pipeline for {target}{pinned}")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text)
    temporary.replace(path)


def _say_difference(target: str, pipeline: str, text: str) -> None:
    from pipelines.compile import difference, golden_path

    if changed := difference(golden_path(target, pipeline), text):
        click.echo(f"{changed}\nnote: differs from the copy in the repository; write that anew with: dual compile --golden", err=True)


def _copies(target: str | None, *, write: bool) -> int:
    """Compare or write the copies; 1 if one is (and stays) out of date."""
    from pipelines.compile import PIPELINES, compile_pipeline, difference, golden_path
    from pipelines.targets import ALL_TARGETS, make_target

    stale = []
    for name, pipeline in [(name, pipeline) for name in ([target] if target else ALL_TARGETS) for pipeline in PIPELINES]:
        text = compile_pipeline(make_target(name), pipeline=pipeline).text
        path = golden_path(name, pipeline)
        if changed := difference(path, text):
            click.echo(changed)
            stale.append(path.name)
        if write:
            _write(path, text)
    if stale and not write:
        click.echo(f"out of date: {', '.join(stale)}; if that is what you meant: dual compile --golden", err=True)
    return int(bool(stale) and not write)
