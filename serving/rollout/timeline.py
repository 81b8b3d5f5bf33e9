"""What a rollout did, as tables and as one picture: phases, weights asked and achieved, and the measurements of both versions.

Made from plain data that the rollout's state keeps, so any process can draw it, also of a rollout that another one ran.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from math import isnan, nan
from typing import Any, Protocol

from serving.rollout.analysis.rules import Measurement, Outcome

Row = list[str | float | int | None]
EVENT_COLUMNS = ["time (UTC)", "phase", "weight asked %", "achieved %", "what happened"]
METRIC_COLUMNS = ["metric", "measurements", "failed", "inconclusive", "errors", "candidate", "stable", "latest"]

_KINDS: Mapping[str, tuple[str, frozenset[str]]] = {
    "preparing": ("#c3c9d1", frozenset({"prepare", "validate_preview"})),
    "share of live traffic": ("#f0b98a", frozenset({"canary", "analyze"})),
    "waiting": ("#f3dd8b", frozenset({"paused"})),
    "all live traffic": ("#a3cfae", frozenset({"promote", "post_analysis", "drain", "promoted"})),
    "going back": ("#e5a19c", frozenset({"aborting", "aborted", "rolled_back", "superseded"})),
}
"""What a phase means for the candidate → its colour, and the phases."""
_OTHER = "#e7eaee"
_MARKS: Mapping[Outcome, tuple[str, str]] = {
    "successful": ("o", "#3f8f55"),
    "inconclusive": ("D", "#c79a1e"),
    "error": ("s", "#6b7280"),
    "failed": ("X", "#c8504b"),
}
"""Marker and colour of an outcome: told apart without colours too."""
_UNITS = {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0, "days": 86400.0}
_TICKS = 3.0
"""A unit is used from so many of it on."""
_WIDTH, _MARGIN = 9.0, 2.2
"""Inches of the picture, and of what is no time in it."""
_LETTER = 0.075
"""Inches that a letter of a phase's name takes, either way."""
_AFTER = 0.04
"""Share of the time axis that shows how it ended."""


class Moment(Protocol):
    """A line of a rollout's time line, oldest first."""

    @property
    def at(self) -> str:
        """UTC, ISO 8601."""
        ...

    @property
    def phase(self) -> str:
        """The phase that began, or goes on."""
        ...

    @property
    def text(self) -> str:
        """What happened."""
        ...

    @property
    def asked(self) -> float | None:
        """The candidate's weight in percent that is asked for from then on; None: unchanged."""
        ...

    @property
    def achieved(self) -> float | None:
        """The weight in percent that it really has from then on; None: unchanged."""
        ...


def event_rows(events: Iterable[Moment]) -> list[Row]:
    """The time line as rows of `EVENT_COLUMNS`."""
    return [[event.at, event.phase, event.asked, event.achieved, event.text] for event in events]


def metric_rows(measurements: Iterable[Measurement]) -> list[Row]:
    """One row of `METRIC_COLUMNS` for each metric: how often it was measured, how that came out, and the latest look."""
    return [_metric_row(metric, seen) for metric, seen in _by_metric(measurements).items()]


def draw_timeline(events: Sequence[Moment], measurements: Sequence[Measurement] = (), *, now: str = "") -> bytes:
    """A PNG over the time since the first event: phases, weights, p99 latency and error rate of both versions, outcomes of every metric.

    Panels without data are left out. `now` (ISO 8601) is where the picture of a rollout ends that still goes on; empty: at the last event
    or measurement. `ValueError` without any event.
    """
    from matplotlib.figure import Figure

    from components.evaluation.pictures import quiet, render

    story = _story(events, measurements, now)
    panels = _panels(story)
    heights = [height for height, _ in panels]
    figure = Figure(figsize=(_WIDTH, sum(heights) + 0.7), layout="constrained")
    many = figure.subplots(len(panels), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    for axes, (_, draw) in zip(many, panels, strict=True):
        draw(axes, story)
        quiet(axes)
    many[0].set_xlim(0, story.end)
    many[-1].set_xlabel(f"{story.unit} since {story.began:%Y-%m-%d %H:%M:%S} UTC")
    return render(figure)


@dataclass(frozen=True)
class _Story:
    events: Sequence[Moment]
    measurements: Sequence[Measurement]
    began: datetime
    unit: str
    end: float
    """Where the picture ends, in units since the begin."""

    def when(self, at: str) -> float:
        return (datetime.fromisoformat(at) - self.began).total_seconds() / _UNITS[self.unit]


_Panel = tuple[float, Callable[[Any, _Story], None]]
"""Height in inches, and what draws it into matplotlib's axes."""


def _story(events: Sequence[Moment], measurements: Sequence[Measurement], now: str) -> _Story:
    if not events:
        raise ValueError("a time line without events has no begin")
    times = [datetime.fromisoformat(at) for at in [*(e.at for e in events), *(m.at for m in measurements), *([now] if now else [])]]
    began = min(times)
    seconds = max((max(times) - began).total_seconds(), 1.0)
    unit = max((name for name, length in _UNITS.items() if length * _TICKS <= seconds), key=_UNITS.__getitem__, default="seconds")
    return _Story(events, measurements, began, unit, seconds / _UNITS[unit] * (1 + _AFTER))


def _panels(story: _Story) -> list[_Panel]:
    metrics = _by_metric(story.measurements)
    panels: list[_Panel] = [(1.05, _draw_phases)]
    if any(event.asked is not None or event.achieved is not None for event in story.events):
        panels.append((1.7, _draw_weights))
    for metric, label, factor in (("latency_p99_ms", "p99 latency, ms", 1.0), ("error_rate", "failed requests, %", 100.0)):
        if any(each.value is not None for each in metrics.get(metric, [])):
            panels.append((1.5, _values_of(metrics[metric], label, factor)))
    if metrics:
        panels.append((0.55 + 0.24 * len(metrics), _draw_outcomes))
    return panels


def _draw_phases(axes: Any, story: _Story) -> None:
    spans = _spans(story)
    inches = (_WIDTH - _MARGIN) / story.end
    for phase, begin, end in spans:
        axes.broken_barh([(begin, end - begin)], (0, 1), facecolors=_colour(phase), edgecolor="white", linewidth=1)
        width = (end - begin) * inches
        if width > _LETTER:
            upright = 0 if width > len(phase) * _LETTER else 90
            axes.text((begin + end) / 2, 0.5, phase, ha="center", va="center", fontsize=8 if not upright else 6.5, rotation=upright)
    kinds = {kind: colour for kind, (colour, phases) in _KINDS.items() if phases & {phase for phase, _, _ in spans}}
    _legend(axes, [_patch(kind, colour) for kind, colour in kinds.items()])
    axes.set_title(spans[-1][0], loc="left", fontsize=11, fontweight="bold")
    axes.set(ylim=(0, 1), yticks=[])
    axes.tick_params(axis="x", length=0)
    axes.spines[["left", "bottom"]].set_visible(False)


def _spans(story: _Story) -> list[tuple[str, float, float]]:
    """Phase, begin, end; lines that only add a remark to a phase are one span with it."""
    begins = [(phase, story.when(next(group).at)) for phase, group in groupby(story.events, key=lambda event: event.phase)]
    ends = [*(begin for _, begin in begins[1:]), story.end]
    return [(phase, begin, end) for (phase, begin), end in zip(begins, ends, strict=True)]


def _draw_weights(axes: Any, story: _Story) -> None:
    from components.evaluation.pictures import INK, ORANGE

    at, achieved = _steps(story, [(event.at, event.achieved) for event in story.events])
    axes.fill_between(at, achieved, step="post", color=ORANGE, alpha=0.25, linewidth=0)
    axes.step(at, achieved, where="post", color=ORANGE, linewidth=1.8, label="achieved")
    at, asked = _steps(story, [(event.at, event.asked) for event in story.events])
    axes.step(at, asked, where="post", color=INK, linewidth=1.1, linestyle=(0, (4, 2)), label="asked")
    axes.set(ylim=(0, 104), yticks=[0, 25, 50, 75, 100], ylabel="candidate's weight, %")
    axes.grid(axis="y", alpha=0.3)
    _legend(axes)


def _steps(story: _Story, weights: Iterable[tuple[str, float | None]]) -> tuple[list[float], list[float]]:
    known = [(story.when(at), weight) for at, weight in weights if weight is not None]
    return [*(at for at, _ in known), story.end], [*(weight for _, weight in known), known[-1][1] if known else nan]


def _values_of(measurements: Sequence[Measurement], title: str, factor: float) -> Callable[[Any, _Story], None]:
    def draw(axes: Any, story: _Story) -> None:
        from components.evaluation.pictures import BLUE, ORANGE

        at = [story.when(each.at) for each in measurements]
        stable = [_scaled(each.baseline, factor) for each in measurements]
        candidate = [_scaled(each.value, factor) for each in measurements]
        for values, marker, colour, label in ((stable, "s", BLUE, "stable"), (candidate, "o", ORANGE, "candidate")):
            axes.plot(at, values, marker, color=colour, markersize=4.5, clip_on=False, zorder=3, label=label)
            # Faint: between two steps nothing was measured.
            axes.plot(at, values, "-", color=colour, linewidth=1.0, alpha=0.4)
        failed = [(x, y) for x, y, each in zip(at, candidate, measurements, strict=True) if each.outcome == "failed"]
        _mark(axes, "failed", failed, size=9)
        highest = max((y for y in [*stable, *candidate] if not isnan(y)), default=0.0)
        axes.set(ylim=(0, 1.15 * highest if highest else 1.0), ylabel=title)
        axes.grid(alpha=0.3)
        _legend(axes)

    return draw


def _mark(axes: Any, outcome: Outcome, points: Sequence[tuple[float, float]], size: float) -> None:
    marker, colour = _MARKS[outcome]
    if points:
        axes.plot(*zip(*points, strict=True), marker, color=colour, markersize=size, clip_on=False, zorder=4, label=outcome)


def _draw_outcomes(axes: Any, story: _Story) -> None:
    rows = list(_by_metric(story.measurements))
    for outcome in _MARKS:
        seen = [(story.when(each.at), rows.index(each.metric)) for each in story.measurements if each.outcome == outcome]
        _mark(axes, outcome, seen, size=6)
    axes.set(yticks=range(len(rows)), yticklabels=rows, ylim=(len(rows) - 0.5, -0.5))
    axes.tick_params(axis="y", labelsize=8, length=0)
    axes.grid(axis="y", alpha=0.3)
    _legend(axes)


def _legend(axes: Any, handles: list[Any] | None = None) -> None:
    """Above the panel: inside, it would hide data."""
    style = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "ncols": 6, "frameon": False, "fontsize": 8, "borderaxespad": 0.1}
    if handles is None:
        axes.legend(**style)
    elif handles:
        axes.legend(handles=handles, **style)


def _patch(label: str, colour: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=colour, label=label)


def _colour(phase: str) -> str:
    return next((colour for colour, phases in _KINDS.values() if phase in phases), _OTHER)


def _scaled(value: float | None, factor: float) -> float:
    return nan if value is None else value * factor


def _by_metric(measurements: Iterable[Measurement]) -> dict[str, list[Measurement]]:
    found: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        found.setdefault(measurement.metric, []).append(measurement)
    return found


def _metric_row(metric: str, seen: Sequence[Measurement]) -> Row:
    outcomes, last = Counter(each.outcome for each in seen), seen[-1]
    counts = [outcomes["failed"], outcomes["inconclusive"], outcomes["error"]]
    return [metric, len(seen), *counts, last.value, last.baseline, last.text]
