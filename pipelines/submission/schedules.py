"""Schedules by name: made once, unchanged if they are asked for again, replaced only where somebody says so, never missing in between."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from components.core.errors import ConflictError, MissingError
from pipelines.submission.backend import Backend, Order, Schedule, Version
from pipelines.submission.cron import Cron
from pipelines.submission.trigger import Interval, Plan

Change = Literal["created", "unchanged", "replaced"]


@dataclass(frozen=True)
class Kept:
    """The schedule as it is now, and what was done for it."""

    schedule: Schedule
    change: Change
    differences: tuple[str, ...] = ()


def keep(backend: Backend, name: str, version: Version, order: Order, plan: Plan, *, replace: bool, enabled: bool = True) -> Kept:
    """Make sure that there is one schedule of this name and content.

    Another content under the name is a `ConflictError` that says what differs, unless `replace`: then the new one is made first, and the
    old ones are deleted after. Whether a schedule is paused is no content: an unchanged one stays as it is.
    """
    existing = named(backend, name)
    # An installation of Kubeflow has one time zone; what a person says of it is no content of a schedule.
    differences = partial(differ, version=version, order=order, plan=plan, zoned=backend.zoned)
    for schedule in existing:
        if not differences(schedule):
            _drop(backend, [each for each in existing if each is not schedule], replace=replace, name=name)
            return Kept(schedule, "unchanged")
    if existing and not replace:
        what = f"a schedule '{name}' exists and differs: {'; '.join(differences(existing[-1]))}"
        raise ConflictError(what, where=existing[-1].id, fix="Add --replace to put this one in its place, or choose another name")
    made = backend.create_schedule(name, version, order, plan, enabled=enabled)
    _drop(backend, existing, replace=replace, name=name)
    return Kept(made, "replaced" if existing else "created", differences(existing[-1]) if existing else ())


def find(backend: Backend, name: str) -> Schedule:
    """The schedule of a name or id; `MissingError` if there is none, `ConflictError` if there are several of the name."""
    found = [each for each in backend.schedules() if name in (each.name, each.id)]
    if not found:
        raise MissingError(f"there is no schedule '{name}'", where="schedules", fix="See: dual schedule list")
    if len(found) > 1:
        ids = ", ".join(each.id for each in found)
        raise ConflictError(f"there are {len(found)} schedules '{name}': {ids}", where="schedules", fix="Give the id instead of the name")
    return found[0]


def named(backend: Backend, name: str) -> list[Schedule]:
    """Every schedule of the name, oldest first."""
    oldest = datetime.min.replace(tzinfo=UTC)
    return sorted((each for each in backend.schedules() if each.name == name), key=lambda each: each.created or oldest)


def differ(schedule: Schedule, version: Version, order: Order, plan: Plan, *, zoned: bool = False) -> tuple[str, ...]:
    """What is different from the wanted content, as `key: is → wanted`; empty if nothing. `zoned`: the time zone is content, too."""
    have = _content(schedule.version, schedule.order, schedule.plan)
    want = _content(version.id, order, plan)
    if zoned:
        have["time zone"], want["time zone"] = schedule.plan.zone, plan.zone
    return tuple(f"{key}: {have.get(key)!r} → {want.get(key)!r}" for key in {**have, **want} if have.get(key) != want.get(key))


def _content(version: str, order: Order, plan: Plan) -> dict[str, Any]:
    parameters = {f"parameter {name}": _number(value) for name, value in order.parameters.items()}
    return {
        "version": version,
        "trigger": _trigger(plan),
        "start": _stamp(plan.start),
        "end": _stamp(plan.end),
        "catch-up": plan.catch_up,
        "max-concurrency": plan.max_concurrency,
        "service-account": order.service_account,
        "pipeline-root": order.pipeline_root,
        **parameters,
    }


def _trigger(plan: Plan) -> str:
    match plan.trigger:
        case Cron():
            return f"{plan.trigger.second} {plan.trigger.numbers()}"
        case Interval():
            return f"every {plan.trigger.seconds} s"
        case _:
            return plan.trigger.text


def _stamp(time: datetime | None) -> str:
    # Services keep whole seconds.
    return time.astimezone(UTC).replace(microsecond=0).isoformat() if time else ""


def _number(value: Any) -> Any:
    # Numbers travel as floating point: 3 comes back as 3.0.
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _drop(backend: Backend, schedules: list[Schedule], *, replace: bool, name: str) -> None:
    if schedules and not replace:
        ids = ", ".join(each.id for each in schedules)
        raise ConflictError(f"further schedules '{name}' exist: {ids}", where="schedules", fix="Add --replace to delete them")
    for schedule in schedules:
        backend.delete_schedule(schedule.id)
