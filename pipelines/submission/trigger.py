"""When a schedule comes due: a cron expression or an interval, from when to when, and what happens to times that were missed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from components.core.errors import UsageError
from pipelines.submission.cron import Cron, Dialect, read_cron

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
MAX_CONCURRENCY = 10
"""Kubeflow Pipelines refuses more (and less than 1)."""


@dataclass(frozen=True)
class Interval:
    """Every so many seconds, counted from the start."""

    seconds: int

    def times(self, after: datetime, start: datetime | None) -> Iterator[datetime]:
        """The times after `after`; the first is one interval after the start, as Kubeflow counts."""
        origin = start or after
        number = max(1, int((after - origin).total_seconds()) // self.seconds + 1)
        while True:
            yield origin + timedelta(seconds=number * self.seconds)
            number += 1


@dataclass(frozen=True)
class Foreign:
    """A trigger that somebody made by other means, and that is not read here."""

    text: str

    def times(self) -> Iterator[datetime]:
        """None that is known."""
        return iter(())


@dataclass(frozen=True, kw_only=True)
class Plan:
    """When to run."""

    trigger: Cron | Interval | Foreign
    start: datetime | None = None
    end: datetime | None = None
    catch_up: bool = False
    """Whether times that were missed (paused, or the service was away) are made up for, one run each."""
    max_concurrency: int = 1
    zone: str = "UTC"
    """The time zone that the scheduler reads a cron expression in."""

    def times(self, now: datetime, dialect: Dialect = "kubeflow") -> Iterator[datetime]:
        """The times to come, in the plan's zone."""
        begin = max(now, self.start) if self.start else now
        zone = read_zone(self.zone)
        for time in self._untilled(now, begin, zone, dialect):
            if self.end and time > self.end:
                return
            yield time.astimezone(zone)

    def _untilled(self, now: datetime, begin: datetime, zone: tzinfo, dialect: Dialect) -> Iterator[datetime]:
        match self.trigger:
            case Cron():
                return self.trigger.times(begin, zone, dialect)
            case Interval():
                return self.trigger.times(now, self.start)
            case Foreign():
                return self.trigger.times()

    def described(self) -> str:
        """The trigger in a few words."""
        match self.trigger:
            case Cron():
                return f"cron '{self.trigger.text}' ({self.zone})"
            case Interval():
                return f"every {described_interval(self.trigger.seconds)}"
            case Foreign():
                return f"'{self.trigger.text}', which was not made by dual"


def read_plan(
    cron: str, every: str, *, start: str, end: str, catch_up: bool, max_concurrency: int, zone: str, seconds_first: bool = False
) -> Plan:
    """A plan from what a person typed; `UsageError` says which word is wrong."""
    if bool(cron) == bool(every):
        raise UsageError("give either --cron or --every", where="schedule", fix="For example --cron '0 3 * * 1', or --every 12h")
    if not 1 <= max_concurrency <= MAX_CONCURRENCY:
        what = f"{max_concurrency} runs at once are not possible"
        raise UsageError(what, where="--max-concurrency", fix=f"Give a number from 1 to {MAX_CONCURRENCY}")
    known = read_zone(zone)
    trigger = read_cron(cron, seconds_first=seconds_first) if cron else Interval(read_interval(every))
    first, last = read_time(start, known, "--start"), read_time(end, known, "--end")
    plan = Plan(trigger=trigger, start=first, end=last, catch_up=catch_up, max_concurrency=max_concurrency, zone=zone)
    if not list(islice(plan.times(datetime.now(UTC)), 1)):
        raise UsageError("the schedule never comes due", where=plan.described(), fix="Check the fields, --start and --end")
    return plan


def read_interval(text: str) -> int:
    """`90s`, `15m`, `6h`, `1d`, `2w` or several (`1h30m`) as seconds, at least one."""
    found = re.findall(r"(\d+)\s*([smhdw])", text.strip().lower())
    rest = re.sub(r"(\d+)\s*([smhdw])\s*", "", text.strip().lower())
    seconds = sum(int(number) * _UNITS[unit] for number, unit in found)
    if rest or seconds < 1:
        raise UsageError(f"'{text}' is no interval", where="--every", fix="Write for example 90s, 15m, 6h, 1d or 1h30m")
    return seconds


def described_interval(seconds: int) -> str:
    """The interval as a person writes it: 5400 → 1h30m."""
    parts = []
    for unit in ("w", "d", "h", "m", "s"):
        count, seconds = divmod(seconds, _UNITS[unit])
        parts += [f"{count}{unit}"] if count else []
    return "".join(parts)


def read_time(text: str, zone: tzinfo, where: str) -> datetime | None:
    """An ISO 8601 date or time as UTC (without an offset: in `zone`); None for an empty text."""
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        fix = "Write for example 2027-01-31, 2027-01-31T03:00 or 2027-01-31T03:00:00+01:00"
        raise UsageError(f"'{text}' is no date or time", where=where, fix=fix) from None
    return (time if time.tzinfo else time.replace(tzinfo=zone)).astimezone(UTC)


def read_zone(name: str) -> tzinfo:
    """A time zone by its IANA name; `UsageError` if there is none of that name."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(f"there is no time zone '{name}'", where="time zone", fix="Use an IANA name such as Europe/Berlin") from None


def next_lines(plan: Plan, dialect: Dialect, now: datetime | None = None, count: int = 3) -> list[str]:
    """The next times, each in the scheduler's zone and, where that differs, in this machine's."""
    times = islice(plan.times(now or datetime.now(UTC), dialect), count)
    return [_both(time) for time in times]


def _both(time: datetime) -> str:
    local = time.astimezone()
    there = f"{time:%a %Y-%m-%d %H:%M:%S %Z}"
    return there if local.utcoffset() == time.utcoffset() else f"{there}  (here {local:%a %Y-%m-%d %H:%M:%S %Z})"
