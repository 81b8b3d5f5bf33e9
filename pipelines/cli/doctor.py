"""dual doctor: what a run or a rollout would stumble over."""

from pathlib import Path
from typing import Any

import click

from pipelines.cli.options import json_option, print_json

WRONG = 6
"""Exit code if a check failed."""
_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "red"), "skipped": ("–", "bright_black")}


@click.command("doctor")
@click.option("--target", type=click.Choice(["local", "kubeflow", "vertex"]), default="local", show_default=True, help="Where runs go.")
@click.option("--store", default="", metavar="URI", help="Try the store: a folder, gs://bucket/prefix or s3://bucket/prefix.")
@click.option("--data", default="", metavar="SOURCE", help="Look for the data source.")
@click.option("--site", "site_file", type=click.Path(path_type=Path, dir_okay=False), help="What dual compile calls --config.")
@click.option("--name", default="classifier", show_default=True, help="Name of the served model and of its objects.")
@click.option("-n", "--namespace", default="", help="Of the served model. Default: the site's, or the kubeconfig context's.")
@click.option("--context", default="", help="kubeconfig context. Default: the current one.")
@click.option("--images", "builds", type=click.Path(path_type=Path, dir_okay=False), help="What `skaffold build --file-output` wrote.")
@click.option("--image", "named", multiple=True, help="An image to look for in its registry.")
@click.option("--try", "try_images", is_flag=True, help="Start a short-lived pod that pulls the images, and delete it.")
@click.option(
    "--connection", type=click.Path(path_type=Path, dir_okay=False), help="How Kubeflow Pipelines is reached, as for `dual submit`."
)
@click.option("--host", default="", help="Address of Kubeflow Pipelines, or port-forward (the default).")
@click.option("--kfp-namespace", default="", help="Namespace of the runs, in a multi-user installation.")
@click.option("--project", default="", help="Google Cloud project. Default: that of the credentials.")
@click.option("--region", default="", help="Region of Vertex AI.")
@click.option("--service-account", default="", help="Account that steps run as, on Vertex AI.")
@click.option("--firebase-bucket", default="", help="Look for this bucket of Cloud Storage for Firebase.")
@click.option("--only", multiple=True, metavar="CHECK", help="This check only; may be given several times.")
@click.option("--list", "list_checks", is_flag=True, help="List the target's checks instead.")
@click.option("--seconds", default=20.0, show_default=True, type=click.FloatRange(1), help="Longest that one check may take.")
@click.option("--strict", is_flag=True, help="Warnings count as failures.")
@json_option
def command(target: str, only: tuple[str, ...], list_checks: bool, strict: bool, as_json: bool, **options: Any) -> None:
    """Look at everything that a run or a rollout on TARGET needs, and say of each thing that is wrong how to mend it.

    Nothing is changed; what is tried is removed again. Exit code 6 if something failed.
    """
    from pipelines.doctor.checklist import checks_for
    from pipelines.doctor.examine import examine

    checks = checks_for(target, only)
    if list_checks:
        _list(checks, as_json)
        return
    findings = []
    for finding in examine(_visit(target, **options), checks):
        findings.append(finding)
        if not as_json:
            _tell(finding)
    if as_json:
        print_json([finding.as_json() for finding in findings])
    else:
        _sum_up(findings)
    wrong = {"failed", "warning"} if strict else {"failed"}
    raise SystemExit(WRONG if any(finding.status in wrong for finding in findings) else 0)


def _visit(target: str, site_file: Path | None, builds: Path | None, named: tuple[str, ...], **options: Any) -> Any:
    from pipelines.compile_images import read_build
    from pipelines.doctor.visit import Visit
    from pipelines.targets.site import load_site

    files = {"connection": options.pop("connection"), "host": options.pop("host"), "namespace": options.pop("kfp_namespace")}
    images = (*named, *(read_build(builds, allow_tags=True).references.values() if builds else ()))
    connection = _connection(files) if target == "kubeflow" else None
    return Visit(target=target, site=load_site(site_file), images=images, connection=connection, **options)


def _connection(given: dict[str, Any]) -> Any:
    from pipelines.submission.kubeflow.connection import read_connection

    file = given.pop("connection")
    return read_connection(file, given)


def _tell(finding: Any) -> None:
    mark, colour = _MARKS[finding.status]
    click.echo(f"{click.style(mark, fg=colour)} {finding.check:<22} {finding.found}")
    if finding.fix and finding.status != "ok":
        click.echo(f"  {'':<22} → {finding.fix}")


def _sum_up(findings: list[Any]) -> None:
    count = {status: sum(finding.status == status for finding in findings) for status in _MARKS}
    click.echo(f"\n{count['ok']} ok, {count['warning']} warnings, {count['failed']} failed, {count['skipped']} not looked at")


def _list(checks: list[Any], as_json: bool) -> None:
    if as_json:
        print_json([{"check": check.name, "about": check.about} for check in checks])
    else:
        click.echo("\n".join(f"{check.name:<16} {check.about}" for check in checks))
