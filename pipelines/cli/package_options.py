"""Options that say what is run: a package or a version that the service has, and its parameters."""

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from components.core.errors import UsageError

_FILE = click.Path(path_type=Path, dir_okay=False)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a person asked to run."""

    package: Path | None
    version: str
    pipeline: str
    images: Path | None
    allow_tags: bool
    registry: str | None
    tag: str | None
    allow_unpinned: bool
    site: Path | None
    data: str
    store: str
    profile: str
    config: Path | None
    overrides: tuple[str, ...]
    parameters: tuple[str, ...]
    experiment: str
    service_account: str
    pipeline_root: str

    def compiled(self, target: str) -> Any:
        """The package: read from its file, or compiled now for the target. `UsageError` if no cluster could pull its images."""
        from pipelines.compile_images import logical_images
        from pipelines.submission.package import parse_package, read_package

        package = read_package(self.package) if self.package else parse_package(self._compile(target), "the compiled pipeline")
        if (loose := sorted(logical_images(package.documents()))) and not self.allow_unpinned:
            fix = "Pin them: --images build.json, or --registry and --tag; --allow-unpinned for a cluster that has images of these names"
            raise UsageError(f"no cluster can pull {', '.join(loose)}", where=str(self.package or "the compiled pipeline"), fix=fix)
        return package

    def parameters_for(self, inputs: Mapping[str, Any], pipeline: str) -> dict[str, Any]:
        """The parameters of the run, checked against what the pipeline declares."""
        from pipelines.submission.parameters import check, parse_pairs

        given = {**self._from_flags(), **{name: text for name, text in (("data", self.data), ("store", self.store)) if text}}
        pairs = parse_pairs(self.parameters)
        if twice := sorted(set(given) & set(pairs)):
            raise UsageError(f"given twice: {', '.join(twice)}", where="--param", fix="Use the flag of that name, or --param, not both")
        checked = check({**given, **pairs}, inputs, pipeline)
        _refuse_relative(checked.get("store", ""))
        return checked

    def _from_flags(self) -> dict[str, str]:
        """`profile` and `settings`, if any layer of settings says something: what is left out keeps the site's default."""
        from pipelines.settings import overlay

        profile, layers = overlay(self.profile or "quick", self.config, self.overrides)
        said = {"profile": profile} if self.profile else {}
        return {**said, **({"settings": json.dumps(layers, ensure_ascii=False, sort_keys=True)} if layers else {})}

    def _compile(self, target: str) -> str:
        from pipelines.compile import compile_pipeline
        from pipelines.compile_images import choose_images
        from pipelines.targets import make_target
        from pipelines.targets.site import load_site

        images = choose_images(self.images, self.registry, self.tag, allow_tags=self.allow_tags)
        return compile_pipeline(make_target(target, load_site(self.site)), images).text


def _refuse_relative(store: str) -> None:
    if store and "://" not in store and not store.startswith("/"):
        fix = "Give gs://bucket/prefix or s3://bucket/prefix, or a folder that is mounted into the pods"
        raise UsageError(f"'{store}' is a folder of this machine: the steps can't reach it", where="--store", fix=fix)


def package_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Everything that makes a `Wanted`, as one argument `wanted`."""
    options = [
        click.option("--package", type=_FILE, metavar="FILE", help="What dual compile wrote. Default: compiled now."),
        click.option(
            "--version", default="", metavar="NAME", help="Instead: a version that the service has (see --pipeline), by its name."
        ),
        click.option("--pipeline", default="dual-deploy", show_default=True, help="With --version: the pipeline that it is a version of."),
        click.option("--images", type=_FILE, metavar="build.json", help="Without --package: pin images, as for dual compile."),
        click.option("--allow-tags", is_flag=True, help="As for dual compile."),
        click.option("--registry", metavar="PREFIX", help="As for dual compile."),
        click.option("--tag", metavar="TAG", help="As for dual compile."),
        click.option("--allow-unpinned", is_flag=True, help="Submit also images that only this site's nodes can have."),
        click.option("--site", type=_FILE, metavar="FILE", help="Without --package: what dual compile calls --config."),
        click.option("--data", default="", metavar="SOURCE", help="Images: http(s)://, gs://, s3://, a mounted folder; flowers; drawn."),
        click.option("--store", default="", metavar="URI", help="gs://bucket/prefix, s3://bucket/prefix, or a mounted folder."),
        click.option("--profile", default="", help="quick, standard, thorough, or a .yaml file of your own. Default: the site's."),
        click.option("--config", type=_FILE, metavar="FILE", help="YAML file of settings, laid over the profile, as for dual run."),
        click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="One setting, for example train_cloud.image_size=96."),
        click.option("--param", "parameters", multiple=True, metavar="NAME=VALUE", help="Any other parameter of the pipeline."),
        click.option("--experiment", default="dual-deploy", show_default=True, help="Groups runs; made if it isn't there."),
        click.option("--service-account", default="", help="Account of the run's pods. Default: the installation's."),
        click.option("--pipeline-root", default="", metavar="URI", help="Where artifacts between steps lie. Default: the installation's."),
    ]
    for option in reversed(options):
        function = option(function)

    @functools.wraps(function)
    def collected(*args: Any, **kwargs: Any) -> Any:
        wanted = Wanted(**{name: kwargs.pop(name) for name in Wanted.__dataclass_fields__})
        if wanted.version and (wanted.package or wanted.images or wanted.registry or wanted.site):
            raise UsageError(
                "a version is compiled already", where="--version", fix="Leave --package, --images, --registry and --site away"
            )
        return function(*args, wanted=wanted, **kwargs)

    return collected
