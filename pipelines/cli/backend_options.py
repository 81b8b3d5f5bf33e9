"""Options that say which service runs the pipeline and how it is reached, and the words that ask it again."""

import contextlib
import functools
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

TARGETS = ("kubeflow", "vertex")
_FLAGS = ("host", "namespace", "auth", "context", "project", "region", "impersonate")


@dataclass(frozen=True)
class Place:
    """A backend that is not asked yet."""

    target: str
    file: Path | None
    flags: dict[str, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def open(self) -> Iterator[Any]:
        """The backend, connected; a port-forward ends with the block."""
        from pipelines.submission.backend import open_backend

        backend: Any = open_backend(self.target, file=self.file, **self.flags)
        try:
            yield backend
        finally:
            backend.close()

    def again(self, *words: str) -> str:
        """A command line that asks the same place; it holds no secret, since no flag does."""
        named = {"connection": str(self.file) if self.file else "", **self.flags}
        given = [part for name, value in named.items() if value for part in (f"--{name}", value)]
        target = [] if self.target == TARGETS[0] else ["--target", self.target]
        return shlex.join(["dual", *words, *target, *given])


def place_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--target, what reaches it, and --connection, as one argument `place`."""
    options = [
        click.option("--target", type=click.Choice(TARGETS), default="kubeflow", show_default=True, help="Service that runs the pipeline."),
        click.option(
            "--host", default="", metavar="URL", help="Kubeflow's address, or port-forward. Also DUAL_KFP_HOST, DUAL_VERTEX_HOST."
        ),
        click.option("-n", "--namespace", default="", help="Kubeflow: of the runs, if it has several users. Also DUAL_KFP_NAMESPACE."),
        click.option("--auth", default="", metavar="KIND", help="Kubeflow: auto, none, token, service-account, iap, dex or cookie."),
        click.option("--context", default="", help="Kubeflow: kubeconfig context for port-forward and pods. Default: the current one."),
        click.option("--project", default="", help="Vertex: Google Cloud project. Also DUAL_VERTEX_PROJECT."),
        click.option("--region", default="", help="Vertex: region, such as europe-west4. Also DUAL_VERTEX_REGION."),
        click.option("--impersonate", default="", metavar="ACCOUNT", help="Vertex: service account to ask as."),
        click.option(
            "--connection",
            type=click.Path(path_type=Path, dir_okay=False),
            help="YAML file with all of this (docs/kubeflow.md, docs/vertex.md).",
        ),
    ]
    for option in reversed(options):
        function = option(function)

    @functools.wraps(function)
    def collected(*args: Any, target: str, connection: Path | None, **kwargs: Any) -> Any:
        flags = {name: kwargs.pop(name) for name in _FLAGS}
        return function(*args, place=Place(target, connection, flags), **kwargs)

    return collected
