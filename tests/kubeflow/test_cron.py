"""Cron as the two schedulers read it; the times are checked against a search that walks through every second or minute."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.errors import UsageError
from pipelines.submission.cron import Cron, Dialect, from_kubeflow, read_cron
from pipelines.submission.trigger import Foreign, Interval, Plan, described_interval, next_lines, read_interval, read_plan, read_time

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)  # a Thursday


def _times(text: str, count: int = 3, dialect: Dialect = "kubeflow", now: datetime = NOW, zone: str = "UTC") -> list[str]:
    found = islice(read_cron(text).times(now, ZoneInfo(zone), dialect), count)
    return [f"{time:%a %Y-%m-%d %H:%M}" for time in found]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("0 3 * * 1", ["Mon 2026-11-30 03:00", "Mon 2026-12-07 03:00"]),
        ("*/15 * * * *", ["Thu 2026-11-26 12:15", "Thu 2026-11-26 12:30"]),
        ("5/20 12 * * *", ["Thu 2026-11-26 12:05", "Thu 2026-11-26 12:25"]),
        ("0 0 1,15 * *", ["Tue 2026-12-01 00:00", "Tue 2026-12-15 00:00"]),
        ("0 0 13 * fri", ["Fri 2026-11-27 00:00", "Fri 2026-12-04 00:00"]),
        ("0 0 ? JAN-feb SUN", ["Sun 2027-01-03 00:00", "Sun 2027-01-10 00:00"]),
        ("0 0 * * 7", ["Sun 2026-11-29 00:00", "Sun 2026-12-06 00:00"]),
        ("0 0 * * 5-7", ["Fri 2026-11-27 00:00", "Sat 2026-11-28 00:00", "Sun 2026-11-29 00:00", "Fri 2026-12-04 00:00"]),
        ("0 0 29 2 *", ["Tue 2028-02-29 00:00"]),
        ("@weekly", ["Sun 2026-11-29 00:00"]),
        ("@hourly", ["Thu 2026-11-26 13:00"]),
    ],
)
def test_the_next_times(text: str, first: list[str]) -> None:
    assert _times(text, len(first)) == first


def test_a_time_is_after_now_and_not_now() -> None:
    assert _times("0 12 * * *", 1) == ["Fri 2026-11-27 12:00"]


def test_a_day_that_matches_either_field_counts_and_a_step_on_a_star_depends_on_the_scheduler() -> None:
    assert _times("0 0 */2 * 1", 2, "kubeflow") == ["Mon 2026-12-07 00:00", "Mon 2026-12-21 00:00"]
    assert _times("0 0 */2 * 1", 3, "argo") == ["Fri 2026-11-27 00:00", "Sun 2026-11-29 00:00", "Mon 2026-11-30 00:00"]
    assert _times("0 0 1 * 1", 2, "argo") == _times("0 0 1 * 1", 2, "kubeflow") == ["Mon 2026-11-30 00:00", "Tue 2026-12-01 00:00"]


def test_clocks_that_are_put_forward_leave_times_out() -> None:
    # Berlin, 28 March 2027: after 01:59 comes 03:00.
    start = datetime(2027, 3, 27, 3, 0, tzinfo=UTC)
    assert _times("30 2 * * *", 2, now=start, zone="Europe/Berlin") == ["Mon 2027-03-29 02:30", "Tue 2027-03-30 02:30"]


def test_kubeflow_gets_the_second_first_and_argo_five_fields() -> None:
    cron = read_cron(" 0  3 * *  MON ")
    assert (cron.for_kubeflow(), cron.for_argo()) == ("0 0 3 * * mon", "0 3 * * mon")
    assert read_cron("30 0 3 * * 1", seconds_first=True).for_kubeflow() == "30 0 3 * * 1"
    with pytest.raises(UsageError, match="Argo's schedules have no seconds"):
        read_cron("30 0 3 * * 1", seconds_first=True).for_argo()


def test_six_fields_are_refused_with_both_readings() -> None:
    with pytest.raises(UsageError) as caught:
        read_cron("0 3 1 * * 1")
    said = str(caught.value)
    assert "second first, as Kubeflow reads it: five fields '3 1 * * 1', next " in said
    assert "minute first, and a year (1)" in said
    assert "five fields '0 3 1 * *', next " in said
    assert "--seconds-first" in said
    with pytest.raises(UsageError, match="not possible \\('45' is no hour\\)"):
        read_cron("0 0 45 * * 1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 3 * *", "has 4 fields"),
        ("", "has 0 fields"),
        ("0 0 3 * * 1 2027", "has 7 fields"),
        ("60 3 * * 1", "'60' is no minute"),
        ("0 24 * * 1", "'24' is no hour"),
        ("0 3 0 * 1", "'0' is no day of month"),
        ("0 3 * 13 1", "'13' is no month"),
        ("0 3 * * 8", "'8' is no day of week"),
        ("0 3 * * moon", "'moon' is no day of week"),
        ("0 3 * * */0", "'*/0' is no day of week"),
        ("0 9-5 * * *", "'9-5' is no hour"),
        ("0 *-5 * * *", "'*-5' is no hour"),
        ("0 3 * * 1,", "'' is no day of week"),
        ("0 3 L * *", "'l' is no day of month"),
        ("@every 1h", "is an interval"),
    ],
)
def test_what_is_no_cron(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_cron(text)
    assert said in str(caught.value)


def test_what_the_server_keeps_is_read_as_the_server_reads_it() -> None:
    assert from_kubeflow("0 0 3 * * 1") == Cron("0 3 * * 1")
    # Five fields in the server: seconds first, and any day of the week.
    assert from_kubeflow("0 3 * * 1") == Cron("3 * * 1 *", "0")
    assert from_kubeflow("@daily") == Cron("0 0 * * *")
    assert from_kubeflow("@every 1h") is None
    assert from_kubeflow("1 * *") is None


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["0", "*/20", "7,45", "10-30/10", "59"]),
    st.sampled_from(["*", "0", "3-5", "*/6", "22,23"]),
    st.sampled_from(["*", "1", "*/2", "13,31", "10-20"]),
    st.sampled_from(["*", "2", "jan-mar", "*/3"]),
    st.sampled_from(["*", "0", "mon-fri", "*/2", "7"]),
    st.sampled_from(["kubeflow", "argo"]),
)
def test_times_are_those_that_a_walk_through_the_minutes_finds(
    minute: str, hour: str, day: str, month: str, weekday: str, dialect: Dialect
) -> None:
    text = f"{minute} {hour} {day} {month} {weekday}"
    found = [time.replace(tzinfo=None) for time in islice(read_cron(text).times(NOW, UTC, dialect), 2)]
    walked = list(islice(_walk(text, dialect), 2))
    assert found == walked


def _walk(text: str, dialect: Dialect) -> Iterator[datetime]:
    """Every day of the next years, and on those that match every minute, asked one by one, by a reading of its own."""
    fields = [
        _spelled(part, low, high) for part, (low, high) in zip(text.split(), [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)], strict=True)
    ]
    open_days = [part.startswith("*") and (dialect == "kubeflow" or part == "*") for part in (text.split()[2], text.split()[4])]
    begin = NOW.replace(tzinfo=None)
    for day in (begin.replace(hour=0) + timedelta(days=number) for number in range(366 * 4)):
        matches = [day.day in fields[2], day.isoweekday() % 7 in fields[4]]
        if day.month in fields[3] and (all(matches) if any(open_days) else any(matches)):
            minutes = (day + timedelta(minutes=number) for number in range(1440))
            yield from (time for time in minutes if time.minute in fields[0] and time.hour in fields[1] and time > begin)


def _spelled(part: str, low: int, high: int) -> set[int]:
    names = {"jan": 1, "mar": 3, "mon": 1, "fri": 5}
    values: set[int] = set()
    for piece in part.split(","):
        body, _, step = piece.partition("/")
        first, _, last = body.partition("-")
        ends = (low, high) if first == "*" else (names.get(first) or int(first), names.get(last) or int(last or first))
        values |= {value % 7 if high == 6 else value for value in range(ends[0], ends[1] + 1, int(step or 1))}
    return values


def test_intervals() -> None:
    assert [read_interval(text) for text in ("90s", "15m", "6h", "1d", "2w", "1h30m", "1 H")] == [
        90,
        900,
        21600,
        86400,
        1209600,
        5400,
        3600,
    ]
    assert [described_interval(seconds) for seconds in (90, 5400, 86400, 1209601)] == ["1m30s", "1h30m", "1d", "2w1s"]
    for text in ("", "0s", "soon", "6", "1h and 2m", "-1h"):
        with pytest.raises(UsageError, match="is no interval"):
            read_interval(text)


def _plan(cron: str = "0 3 * * 1", every: str = "", **more: object) -> Plan:
    given = {"start": "", "end": "", "catch_up": False, "max_concurrency": 1, "zone": "UTC", **more}
    return read_plan(cron, every, **given)  # type: ignore[arg-type]


def test_a_plan_begins_and_ends() -> None:
    plan = Plan(trigger=Interval(3600), start=NOW - timedelta(minutes=90), end=NOW + timedelta(hours=2))
    assert [f"{time:%H:%M}" for time in plan.times(NOW)] == ["12:30", "13:30"]
    cron = Plan(trigger=read_cron("0 * * * *"), start=NOW + timedelta(days=1), end=NOW + timedelta(days=1, hours=2))
    assert [f"{time:%d %H:%M}" for time in cron.times(NOW)] == ["27 13:00", "27 14:00"]
    assert list(Plan(trigger=Foreign("@every 1h")).times(NOW)) == []


def test_times_are_shown_in_the_schedulers_zone() -> None:
    lines = next_lines(Plan(trigger=read_cron("0 3 * * 1"), zone="Asia/Tokyo"), "argo", NOW, 1)
    assert lines[0].startswith("Mon 2026-11-30 03:00:00 JST")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cron": "", "every": ""}, "give either --cron or --every"),
        ({"every": "1h"}, "give either --cron or --every"),
        ({"max_concurrency": 0}, "0 runs at once are not possible"),
        ({"max_concurrency": 11}, "11 runs at once are not possible"),
        ({"zone": "Mars/Olympus"}, "there is no time zone 'Mars/Olympus'"),
        ({"start": "tomorrow"}, "'tomorrow' is no date or time"),
        ({"end": "2001-01-01"}, "the schedule never comes due"),
        ({"cron": "0 0 30 2 *"}, "the schedule never comes due"),
    ],
)
def test_plans_that_can_not_be(given: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        _plan(**given)  # type: ignore[arg-type]
    assert said in str(caught.value)


def test_times_without_an_offset_are_in_the_schedules_zone() -> None:
    assert read_time("2027-01-31T03:00", ZoneInfo("Europe/Berlin"), "") == datetime(2027, 1, 31, 2, 0, tzinfo=UTC)
    assert read_time("2027-01-31T03:00:00-05:00", ZoneInfo("Europe/Berlin"), "") == datetime(2027, 1, 31, 8, 0, tzinfo=UTC)
    assert read_time("", UTC, "") is None
