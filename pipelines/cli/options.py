"""Options that several commands share, spelled once."""

import functools
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


def cluster_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--name, --namespace, --context and --access."""
    options = [
        click.option("--name", default="classifier", show_default=True, help="Name of the served model and of its objects."),
        click.option("-n", "--namespace", default="", help="Default: the context's namespace."),
        click.option("--context", default="", help="kubeconfig context. Default: the current one."),
        click.option(
            "--access",
            type=click.Choice(["direct", "proxy"]),
            default="direct",
            show_default=True,
            help="How pods are asked: by address, or through the API server (from outside the cluster).",
        ),
    ]
    for option in reversed(options):
        function = option(function)

    @functools.wraps(function)
    def collected(*args: Any, name: str, namespace: str, context: str, access: str, **kwargs: Any) -> Any:
        return function(*args, cluster=(name, {"namespace": namespace, "context": context, "access": access}), **kwargs)

    return collected


def rollout_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`cluster_options`, and --target: with `vertex` the function is called with `cluster` as (name, None)."""
    where = click.option(
        "--target",
        type=click.Choice(["kubernetes", "vertex"]),
        default="kubernetes",
        show_default=True,
        help="A cluster, or the Vertex AI endpoint that the store's rollouts are on.",
    )

    @functools.wraps(function)
    def aimed(*args: Any, target: str, cluster: tuple[str, dict[str, str]], **kwargs: Any) -> Any:
        if target == "kubernetes":
            return function(*args, cluster=cluster, **kwargs)
        name, given = cluster
        for flag in ("namespace", "context"):
            if given[flag]:
                raise click.UsageError(f"--{flag} means nothing with --target vertex: the store knows the endpoint")
        return function(*args, cluster=(name, None), **kwargs)

    return where(cluster_options(aimed))


def print_json(value: Any) -> None:
    """One JSON value on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
