"""The command line `dual`: a thin shell over plain functions. Commands are imported when they are called, so that help answers at once."""

import difflib
import os
import sys
from importlib import import_module
from typing import Any, NoReturn

import click

COMMANDS = {
    "run": "Train, judge and ship a pair of models from labelled images.",
    "demo": "The main job on Flowers, or on drawn flowers where the network refuses.",
    "data": "Look at a data source before a run (check), or draw one (draw).",
    "serve": "Serve the promoted cloud model on this machine, TF-Serving-compatible.",
    "predict": "Classify images with the promoted cloud model, mobile model, or both layered.",
    "batch": "Classify every image of a folder or a bucket with a release, one line of JSON each.",
    "web": "A page that runs the published model in a browser, and asks the cloud model when it is unsure.",
    "release": "List, show, verify and compare releases.",
    "images": "List the container images that a site needs, and copy them to its own registry or over an air gap.",
    "publish": "Which devices use which model: start, widen, pause, undo, history, gc.",
    "keys": "Make, rotate and list the keys that sign channels.",
    "rollout": "Start, watch, steer and undo rollouts of the cloud model on Kubernetes.",
    "undo": "Go back to the previously promoted release, both halves.",
    "report": "Write or open the report of a run.",
    "compile": "Write the pipeline for Kubeflow, Vertex or this machine as one YAML file.",
    "submit": "Start a run on Kubeflow or Vertex AI Pipelines, and follow it.",
    "runs": "List, show, follow, retry and end runs on Kubeflow or Vertex AI Pipelines.",
    "schedule": "Runs that start by themselves: create, list, pause, delete.",
    "doctor": "Look at everything that a run or a rollout needs, and say how to mend what is wrong.",
    "cost": "Estimate what a run will cost, and say what it cost and what the pair saves.",
    "settings": "Print the settings of a run as it would start.",
}


class LazyGroup(click.Group):
    """Knows its commands by name and imports one only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import `pipelines.cli.<name>` and take its `command`."""
        if cmd_name not in COMMANDS:
            return None
        module: Any = import_module(f"pipelines.cli.{cmd_name}")
        return module.command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command, or say which one was probably meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise click.UsageError(f"There is no command '{args[0]}'.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; our own errors leave with their message and exit code, without a traceback."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            _leave(error)


class _Failure(click.ClickException):
    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def _leave(error: Exception) -> NoReturn:
    from components.core.errors import DualError

    if isinstance(error, DualError):
        raise _Failure(str(error), error.exit_code) from error
    raise error


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="dual-deploy", prog_name="dual")
def cli() -> None:
    """One pipeline from labelled images to a served cloud model and a published int8 mobile model.

    \b
    Exit codes: 0 ok · 1 failed · 2 usage or configuration · 3 not blessed · 4 bad data · 5 conflict · 6 findings of doctor
    """  # noqa: D301 - click wants the real backspace character


def main() -> None:
    """Entry point of the `dual` command."""
    # TensorFlow greets with pages of information; a person who wants them sets the level.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        cli(prog_name="dual")
    except BrokenPipeError:
        # The reader (head, less) went away; that is no failure of ours.
        sys.stderr.close()
