"""`dual schedule --engine argo`: CronWorkflows that submit."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from pipelines.cli.backend_options import Place
from pipelines.cli.options import print_json
from pipelines.cli.package_options import Wanted

IMAGE = "dual-deployer"


def create_argo(
    name: str,
    place: Place,
    wanted: Wanted,
    when: Any,
    *,
    replace: bool,
    paused: bool,
    as_json: bool,
    image: str,
    no_wait: bool,
    output: Path | None,
) -> None:
    """Write the CronWorkflow and its account to a file, or make sure of it in the cluster; the version is uploaded first in that case."""
    package = None if wanted.version else wanted.compiled(place.target)
    version = package.version_name() if package else wanted.version
    if package:
        wanted.parameters_for(package.inputs, package.name)
    schedule = _schedule(name, place, wanted, when.plan("UTC"), version=version, image=image, wait=not no_wait, enabled=not paused)
    if output is not None:
        _write(schedule, output, package, as_json)
    else:
        _send(schedule, place, wanted, package, replace=replace, as_json=as_json)


def list_argo(place: Place, as_json: bool) -> None:
    """Every CronWorkflow that dual made in the namespace."""
    from pipelines.submission.argo.schedules import every

    found = every(*_cluster(place))
    if as_json:
        print_json([_json(each) for each in found])
        return
    for each in found:
        click.echo(_line(each))


def show_argo(name: str, place: Place, as_json: bool) -> None:
    """One CronWorkflow and its next times."""
    from pipelines.submission.argo.schedules import find

    found = find(*_cluster(place), name)
    if as_json:
        print_json(_json(found))
        return
    click.echo(_line(found))
    click.echo(f"  image     {found.image}\n  submits   {' '.join(found.arguments)}")
    for workflow in found.active:
        click.echo(f"  running   {workflow}")
    for time in _next(found):
        click.echo(f"  next      {time}")


def enable_argo(name: str, place: Place, *, enabled: bool) -> None:
    """Pause or resume."""
    from pipelines.submission.argo.schedules import suspend

    suspend(*_cluster(place), name, enabled=enabled)


def delete_argo(name: str, place: Place) -> None:
    """Remove the CronWorkflow; its account stays, since others may use it."""
    from pipelines.submission.argo.schedules import delete

    delete(*_cluster(place), name)


def _schedule(name: str, place: Place, wanted: Wanted, plan: Any, *, version: str, image: str, wait: bool, enabled: bool) -> Any:
    from pipelines.submission.argo.cron_workflow import ArgoSchedule

    connection = _connection(place)
    named = {"DUAL_KFP_HOST": connection.host, "DUAL_KFP_NAMESPACE": connection.namespace}
    return ArgoSchedule(
        name=name,
        namespace=connection.namespace or connection.system_namespace,
        plan=plan,
        image=image or _image(wanted),
        arguments=_arguments(wanted, version),
        wait=wait,
        environment={key: value for key, value in named.items() if value and value != "port-forward"},
        enabled=enabled,
    )


def _arguments(wanted: Wanted, version: str) -> list[str]:
    """What the Workflow gives to dual submit: the version by name, and every flag of the run as it was given."""
    flags = {
        "--pipeline": wanted.pipeline,
        "--version": version,
        "--data": wanted.data,
        "--store": wanted.store,
        "--profile": wanted.profile,
        "--experiment": wanted.experiment,
        "--service-account": wanted.service_account,
        "--pipeline-root": wanted.pipeline_root,
    }
    words = [word for flag, value in flags.items() if value for word in (flag, value)]
    words += [word for text in wanted.overrides for word in ("--set", text)]
    return [*words, *(word for text in wanted.parameters for word in ("--param", text))]


def _image(wanted: Wanted) -> str:
    from components.core.errors import UsageError
    from pipelines.compile_images import choose_images

    images = choose_images(wanted.images, wanted.registry, wanted.tag, allow_tags=wanted.allow_tags)
    if images is None:
        fix = "Give --image, or --images build.json, or --registry and --tag"
        raise UsageError(f"which image is {IMAGE}?", where="--engine argo", fix=fix)
    return images.reference(IMAGE)


def _write(schedule: Any, output: Path, package: Any, as_json: bool) -> None:
    import yaml

    from pipelines.submission.argo.cron_workflow import account, cron_workflow

    documents = [*account(schedule), cron_workflow(schedule)]
    temporary = output.with_name(f".{output.name}.part")
    temporary.write_text(yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True))
    temporary.replace(output)
    if as_json:
        print_json({"file": str(output), "name": schedule.name, "next": _upcoming(schedule.plan)})
        return
    click.echo(f"{output}: CronWorkflow {schedule.namespace}/{schedule.name}, its ServiceAccount, Role and RoleBinding")
    if package:
        click.echo("upload the version that it runs: dual submit --upload-only, with the same package")
    for time in _upcoming(schedule.plan):
        click.echo(f"  next      {time}")


def _send(schedule: Any, place: Place, wanted: Wanted, package: Any, *, replace: bool, as_json: bool) -> None:
    from pipelines.submission.argo.schedules import keep

    with place.open() as backend:
        version = backend.ensure_version(package) if package else backend.find_version(wanted.pipeline, wanted.version)
        wanted.parameters_for(version.inputs, version.name)
    cluster, _ = _cluster(place)
    change, found = keep(cluster, schedule, replace=replace)
    if as_json:
        print_json({"change": change, **_json(found)})
        return
    click.echo(f"{change}: {_line(found)}")
    for time in _next(found):
        click.echo(f"  next      {time}")


def _connection(place: Place) -> Any:
    from pipelines.submission.kubeflow.connection import read_connection

    return read_connection(place.file, place.flags)


def _cluster(place: Place) -> tuple[Any, str]:
    from pipelines.submission.kubeflow.cluster import open_cluster

    connection = _connection(place)
    return open_cluster(connection.context), connection.namespace or connection.system_namespace


def _line(found: Any) -> str:
    return f"{found.name}  {'on' if found.enabled else 'paused':<6}  cron '{found.cron}' ({found.zone})"


def _json(found: Any) -> dict[str, Any]:
    return {**asdict(found), "last": found.last.isoformat() if found.last else None, "next": _next(found)}


def _next(found: Any) -> list[str]:
    """The next times of a CronWorkflow; none while it is paused, or if somebody changed it to what is not read here."""
    from components.core.errors import UsageError
    from pipelines.submission.cron import read_cron
    from pipelines.submission.trigger import Plan

    try:
        return _upcoming(Plan(trigger=read_cron(found.cron), zone=found.zone)) if found.enabled else []
    except UsageError:
        return []


def _upcoming(plan: Any) -> list[str]:
    from pipelines.submission.trigger import next_lines

    return next_lines(plan, "argo")
