"""From what kfp's generated client answers (its models) to our words."""

from typing import Any

from pipelines.submission.backend import Order, Run, Schedule, Version
from pipelines.submission.cron import Cron, from_kubeflow
from pipelines.submission.kubeflow.tasks import real_time, reported, state_of, steps
from pipelines.submission.package import read_inputs
from pipelines.submission.trigger import Foreign, Interval, Plan


def to_version(found: Any, ui: str, *, created: bool) -> Version:
    """A pipeline version; `ui` is the address of the web pages, or empty."""
    return Version(
        id=found.pipeline_version_id,
        name=found.display_name,
        pipeline=found.pipeline_id,
        inputs=read_inputs(found.pipeline_spec or {}),
        created=created,
        link=_link(ui, f"pipelines/details/{found.pipeline_id}/version/{found.pipeline_version_id}"),
    )


def to_run(found: Any, ui: str) -> Run:
    """A run, with its tasks where the server sent them."""
    reference = found.pipeline_version_reference
    details = (found.run_details.task_details if found.run_details else None) or ()
    return Run(
        id=found.run_id,
        name=found.display_name or "",
        state=state_of(found.state),
        link=_link(ui, f"runs/details/{found.run_id}"),
        experiment=found.experiment_id or "",
        pipeline=(reference.pipeline_id or "") if reference else "",
        version=(reference.pipeline_version_id or "") if reference else "",
        schedule=found.recurring_run_id or "",
        created=real_time(found.created_at),
        ended=real_time(found.finished_at),
        archived=found.storage_state == "ARCHIVED",
        error=(found.error.message or "") if found.error else "",
        parameters=_parameters(found.runtime_config),
        tasks=steps(reported(details)),
        history=tuple((state_of(each.state), real_time(each.update_time)) for each in found.state_history or ()),
    )


def to_schedule(found: Any, ui: str, zone: str) -> Schedule:
    """A recurring run; `zone` is the time zone that the installation reads cron expressions in."""
    config, reference = found.runtime_config, found.pipeline_version_reference
    order = Order(
        experiment=found.experiment_id or "",
        name=found.display_name or "",
        parameters=_parameters(config),
        service_account=found.service_account or "",
        pipeline_root=(config.pipeline_root or "") if config else "",
    )
    return Schedule(
        id=found.recurring_run_id,
        name=found.display_name or "",
        order=order,
        version=(reference.pipeline_version_id or "") if reference else "",
        plan=_plan(found, zone),
        enabled=found.status == "ENABLED",
        created=real_time(found.created_at),
        link=_link(ui, f"recurringrun/details/{found.recurring_run_id}"),
    )


def _parameters(config: Any) -> dict[str, Any]:
    return dict(config.parameters or {}) if config else {}


def _link(ui: str, page: str) -> str:
    return f"{ui}/#/{page}" if ui else ""


def _plan(found: Any, zone: str) -> Plan:
    cron = found.trigger.cron_schedule if found.trigger else None
    periodic = found.trigger.periodic_schedule if found.trigger else None
    source = cron or periodic
    return Plan(
        trigger=_trigger(cron, periodic),
        start=real_time(source.start_time) if source else None,
        end=real_time(source.end_time) if source else None,
        catch_up=not found.no_catchup,
        max_concurrency=int(found.max_concurrency or 1),
        zone=zone,
    )


def _trigger(cron: Any, periodic: Any) -> Cron | Interval | Foreign:
    if periodic:
        return Interval(int(periodic.interval_second or 1))
    text = (cron.cron or "") if cron else ""
    return from_kubeflow(text) or Foreign(text)
