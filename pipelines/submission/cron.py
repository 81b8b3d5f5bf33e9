"""Cron expressions as the schedulers here read them, and the times that come of them.

Five fields (minute, hour, day of month, month, day of week) are what people write. Kubeflow Pipelines parses with robfig/cron v1,
seconds first: given five fields it takes the first as seconds and says nothing, so `0 3 * * 1` means each hour's third minute in January.
Argo parses with robfig/cron v3, five fields. Both: https://github.com/robfig/cron (parser.go, spec.go). Vertex AI wants five fields, too,
and does not say which parser reads them. The first two differ in one more thing: if
day of month and day of week are both restricted, a day that matches either is a match; `*/2` counts as unrestricted in v1, not in v3.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Literal

from components.core.errors import UsageError

Dialect = Literal["kubeflow", "argo"]
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_HORIZON = timedelta(days=366 * 5)
"""robfig/cron gives up after five years too: 30 February never comes."""


@dataclass(frozen=True)
class _Range:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    """Words for the numbers from `low` on."""


_SECOND = _Range("second", 0, 59)
_FIELDS = (
    _Range("minute", 0, 59),
    _Range("hour", 0, 23),
    _Range("day of month", 1, 31),
    _Range("month", 1, 12, _MONTHS),
    _Range("day of week", 0, 7, _DAYS),
)


@dataclass(frozen=True)
class _Field:
    values: frozenset[int]
    """As they are written: Sunday may be 7."""
    star: bool
    """Whether v1 takes the field for unrestricted."""
    bare_star: bool
    """Whether v3 does."""

    def is_open(self, dialect: Dialect) -> bool:
        """Whether the scheduler takes the field for unrestricted."""
        return self.star if dialect == "kubeflow" else self.bare_star


@dataclass(frozen=True)
class Cron:
    """A schedule: five fields, and the second at which it comes due (0 unless somebody asked for another)."""

    text: str
    """Five fields, normalised: single blanks, no names of schedules, Sunday as 0."""
    second: str = "0"

    def for_kubeflow(self) -> str:
        """Six fields, seconds first."""
        return f"{self.second} {self.text}"

    def for_argo(self) -> str:
        """Five fields; `UsageError` if the schedule depends on seconds."""
        if self.second != "0":
            fix = "Give five fields"
            raise UsageError(f"Argo's schedules have no seconds, and this one says second {self.second}", where="--cron", fix=fix)
        return self.text

    def for_vertex(self) -> str:
        """Five fields of numbers (which names Vertex reads is not documented); `UsageError` if the schedule depends on seconds."""
        if self.second != "0":
            what = f"Vertex' schedules have no seconds, and this one says second {self.second}"
            raise UsageError(what, where="--cron", fix="Give five fields")
        return self.numbers()

    def numbers(self) -> str:
        """The five fields without names and question marks: `0 3 ? * mon` → `0 3 * * 1`."""
        known = {word: str(each.low + place) for each in _FIELDS for place, word in enumerate(each.names)}
        return re.sub("[a-z]+", lambda match: known[match[0]], self.text.replace("?", "*"))

    def times(self, after: datetime, zone: tzinfo = UTC, dialect: Dialect = "kubeflow") -> Iterator[datetime]:
        """The times after `after`, in `zone` (the scheduler's own); none after five years without one."""
        fields = [_parse(part, each) for part, each in zip(self.text.split(), _FIELDS, strict=True)]
        seconds = sorted(_parse(self.second, _SECOND).values)
        # The wall clock, as the scheduler reads it: a time that a change of the clocks leaves out does not come.
        wall = after.astimezone(zone).replace(tzinfo=None, microsecond=0) + timedelta(seconds=1)
        for day in _days(wall, fields, dialect):
            for hour in sorted(fields[1].values):
                for minute in sorted(fields[0].values):
                    for second in seconds:
                        time = day.replace(hour=hour, minute=minute, second=second)
                        if time >= wall and _exists(time, zone):
                            yield time.replace(tzinfo=zone)


def read_cron(text: str, *, seconds_first: bool = False) -> Cron:
    """Five fields or a name such as `@daily`; six fields only if somebody says that the first one is the second.

    Raises `UsageError` that says which field is wrong, or, for six fields, how they could be read.
    """
    words = _NAMED.get(text.strip().lower(), text).split()
    if text.strip().lower().startswith("@every"):
        raise UsageError(f"'{text}' is an interval", where="--cron", fix="Use --every, for example --every 6h")
    if len(words) == 6 and seconds_first:
        return Cron(_normal(words[1:]), _checked(words[0], _SECOND))
    if len(words) == 6:
        raise _ambiguous(words)
    if len(words) != 5 or seconds_first:
        wanted = "six fields (second minute hour day month weekday)" if seconds_first else "five fields (minute hour day month weekday)"
        raise UsageError(f"'{text}' has {len(words)} fields", where="--cron", fix=f"Write {wanted}, for example '0 3 * * 1'")
    return Cron(_normal(words))


def from_kubeflow(text: str) -> Cron | None:
    """What Kubeflow has stored, as a schedule; None if it is one that this module does not write (`@every 1h`, or not six fields)."""
    words = _NAMED.get(text.strip().lower(), text).split()
    words = [*words, "*"] if len(words) == 5 and text.strip().lower() not in _NAMED else words
    words = ["0", *words] if len(words) == 5 else words
    try:
        return Cron(_normal(words[1:]), _checked(words[0], _SECOND)) if len(words) == 6 else None
    except UsageError:
        return None


def _ambiguous(words: list[str]) -> UsageError:
    first = _reading(words[0], words[1:], "second first, as Kubeflow reads it")
    second = _reading("0", words[:5], f"minute first, and a year ({words[5]}) that neither Kubeflow nor Argo knows")
    what = f"'{' '.join(words)}' has six fields, and these can be read in two ways: {first}; or {second}"
    return UsageError(what, where="--cron", fix="Write the five fields that you mean, or add --seconds-first for the first reading")


def _reading(second: str, words: list[str], how: str) -> str:
    try:
        cron = Cron(_normal(words), _checked(second, _SECOND))
    except UsageError as error:
        return f"{how}: not possible ({error.what})"
    first = next(cron.times(datetime.now(UTC)), None)
    return f"{how}: five fields '{cron.text}', " + (f"next {first:%Y-%m-%d %H:%M:%S} UTC" if first else "which never comes")


def _normal(words: list[str]) -> str:
    return " ".join(_checked(word, field) for word, field in zip(words, _FIELDS, strict=True))


def _checked(word: str, field: _Range) -> str:
    values = _parse(word, field).values
    if field.high != 7 or 7 not in values:
        return word.lower()
    # robfig/cron has no day 7: whoever writes it means Sunday, 0.
    return ",".join(str(value) for value in sorted({value % 7 for value in values}))


def _parse(word: str, field: _Range) -> _Field:
    pieces = [_piece(piece, field) for piece in word.lower().split(",")]
    values = frozenset[int]().union(*(values for values, _, _ in pieces))
    return _Field(values, any(star for _, star, _ in pieces), any(star and not stepped for _, star, stepped in pieces))


def _piece(piece: str, field: _Range) -> tuple[frozenset[int], bool, bool]:
    match = re.fullmatch(r"(\*|\?|[0-9a-z]+)(?:-([0-9a-z]+))?(?:/([0-9]+))?", piece)
    if match is None or (match[1] in "*?" and match[2]):
        raise _wrong(piece, field)
    star, step = match[1] in "*?", int(match[3] or 1)
    low = field.low if star else _number(match[1], field)
    highest = 6 if field.high == 7 else field.high
    high = _number(match[2], field) if match[2] else highest if star or match[3] else low
    if step == 0 or not field.low <= low <= high <= field.high:
        raise _wrong(piece, field)
    return frozenset(range(low, high + 1, step)), star, step > 1


def _number(word: str, field: _Range) -> int:
    if word.isdecimal():
        return int(word)
    if word in field.names:
        return field.low + field.names.index(word)
    raise _wrong(word, field)


def _wrong(word: str, field: _Range) -> UsageError:
    names = f", or {field.names[0]} to {field.names[-1]}" if field.names else ""
    fix = f"Numbers from {field.low} to {field.high}{names}; lists 1,2, ranges 1-5, steps */2 or 1-9/2"
    return UsageError(f"'{word}' is no {field.name}", where="--cron", fix=fix)


def _days(wall: datetime, fields: list[_Field], dialect: Dialect) -> Iterator[datetime]:
    month_days, months, week_days = fields[2], fields[3].values, fields[4]
    day = wall.replace(hour=0, minute=0, second=0)
    while day - wall < _HORIZON:
        by_month, by_week = day.day in month_days.values, day.isoweekday() % 7 in {value % 7 for value in week_days.values}
        # Either restricts alone; if both do, one that matches is enough.
        either = month_days.is_open(dialect) or week_days.is_open(dialect)
        if day.month in months and (by_month and by_week if either else by_month or by_week):
            yield day
        day += timedelta(days=1)


def _exists(time: datetime, zone: tzinfo) -> bool:
    """Whether the wall clock shows this time on that day (a clock put forward skips some)."""
    aware = time.replace(tzinfo=zone)
    return aware.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == time
