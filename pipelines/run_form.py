"""The run form: root parameters of the compiled pipeline, with the help that KFP's and Vertex' consoles show.

Texts that hold JSON are strings and no structs: KFP's local runner refuses null in a struct, and a struct's numbers arrive as floats.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

REQUIRED: Any = inspect.Parameter.empty


@dataclass(frozen=True)
class Parameter:
    """One field: its name, KFP type, help, and its default, without which it must be filled in."""

    name: str
    type: type
    help: str
    default: Any = REQUIRED


SETTINGS_FIELDS = (
    Parameter("profile", str, "`quick` (minutes, without pretrained weights), `standard` (a workstation) or `thorough` (GPU).", "quick"),
    Parameter("spans", str, "Which spans of dated data: `latest`, `latest:N`, `all`, a number, or a range `3-7`; empty: the newest.", ""),
    Parameter(
        "thresholds",
        str,
        'JSON, laid over the profile\'s: {"evaluate_cloud": {"accuracy": {"min": 0.9}}, "evaluate_mobile": {…}, "compare_pair": {…}}.',
        "",
    ),
    Parameter(
        "rollout_strategy",
        str,
        "On a cluster: `canary`, `blue-green` or `recreate`; empty: the plan that the cluster's operators keep there.",
        "",
    ),
    Parameter(
        "rollout_steps", str, 'JSON, the canary\'s weights in percent: [10, 50], or [{"weight": 10, "pause": 60}]; empty: as planned.', ""
    ),
    Parameter("settings", str, "JSON with any other setting, nested as in docs/configuration.md; the fields above win over it.", ""),
)
"""The fields that become settings; ingest takes each under the same name."""

RUN_ID = Parameter("run_id", str, "Name of this run's folder in the store.")


def source_and_store(data: str = "", store: str = "") -> list[Parameter]:
    """The two fields that every run must know; with a default where the site has one."""
    what = "Folder, CSV, archive or TFRecords at http(s)://, gs:// or s3:// (or mounted); or `flowers`, or `drawn` (needs no network)."
    where = "Where releases, channels and run records live: gs://bucket/prefix, s3://bucket/prefix, or a mounted folder."
    return [Parameter("data", str, what, data or REQUIRED), Parameter("store", str, where, store or REQUIRED)]


def with_form(parameters: Sequence[Parameter], body: Callable[[dict[str, Any]], None], *, summary: str) -> Callable[..., None]:
    """A function that KFP takes for one with these typed parameters and this documentation; it calls `body` with them by name."""
    ordered = sorted(parameters, key=lambda parameter: parameter.default is not REQUIRED)
    names = [parameter.name for parameter in ordered]

    def dual(*channels: Any) -> None:
        body(dict(zip(names, channels, strict=True)))

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    fields = [inspect.Parameter(p.name, kind, default=p.default, annotation=p.type) for p in ordered]
    dual.__signature__ = inspect.Signature(fields)  # pyright: ignore[reportFunctionMemberAccess] - KFP asks inspect.signature()
    dual.__doc__ = "\n".join([summary, "", "Args:", *(f"    {p.name}: {p.help}" for p in ordered)])
    return dual
