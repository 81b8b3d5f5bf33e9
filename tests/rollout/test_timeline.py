"""Time lines: the tables' cells, and what can be seen in the picture."""

import io
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from PIL import Image

from serving.rollout.analysis.rules import Measurement, Outcome
from serving.rollout.timeline import EVENT_COLUMNS, METRIC_COLUMNS, draw_timeline, event_rows, metric_rows

BEGAN = datetime(2026, 11, 21, 6, tzinfo=UTC)
RED, GREEN, YELLOW = (0xC8, 0x50, 0x4B), (0x3F, 0x8F, 0x55), (0xF3, 0xDD, 0x8B)
CANDIDATE, STABLE = (0xD9, 0x77, 0x2B), (0x2F, 0x6D, 0xB3)


@dataclass(frozen=True)
class Event:
    at: str
    phase: str
    text: str = ""
    asked: float | None = None
    achieved: float | None = None


def at(seconds: float) -> str:
    return (BEGAN + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def measured(seconds: float, outcome: Outcome = "successful", *, metric: str = "error_rate", baseline: float | None = None) -> Measurement:
    return Measurement(metric=metric, outcome=outcome, value=0.2, baseline=baseline, text=f"{metric} at {seconds}", at=at(seconds))


EVENTS = [
    Event(at(0), "prepare", asked=0, achieved=0),
    Event(at(20), "canary", asked=50, achieved=0),
    Event(at(30), "analyze", "step 1", asked=50, achieved=48),
    Event(at(60), "promoted", asked=100, achieved=100),
]


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def coloured(png: bytes, colour: tuple[int, int, int]) -> np.ndarray:
    """Where the picture has a colour: bool [height, width]."""
    return (pixels(png) == np.array(colour)).all(axis=2)


def test_rows_have_the_columns_cells() -> None:
    (row,) = event_rows(EVENTS[2:3])
    assert dict(zip(EVENT_COLUMNS, row, strict=True)) == {
        "time (UTC)": "2026-11-21T06:00:30.000+00:00",
        "phase": "analyze",
        "weight asked %": 50,
        "achieved %": 48,
        "what happened": "step 1",
    }


def test_metrics_are_counted_and_the_latest_is_shown() -> None:
    outcomes: list[Outcome] = ["failed", "error", "inconclusive", "inconclusive", "successful"]
    first, second = metric_rows([*(measured(n, outcome, baseline=0.1) for n, outcome in enumerate(outcomes)), measured(9, metric="load")])
    assert dict(zip(METRIC_COLUMNS, first, strict=True)) == {
        "metric": "error_rate",
        "measurements": 5,
        "failed": 1,
        "inconclusive": 2,
        "errors": 1,
        "candidate": 0.2,
        "stable": 0.1,
        "latest": "error_rate at 4",
    }
    assert second == ["load", 1, 0, 0, 0, 0.2, None, "load at 9"]


def test_the_picture_shows_what_failed_and_only_that() -> None:
    good = draw_timeline(EVENTS, [measured(40), measured(50)])
    bad = draw_timeline(EVENTS, [measured(40), measured(50, "failed")])
    assert not coloured(good, RED).any()
    assert coloured(good, GREEN).any()
    assert coloured(bad, RED).sum() > 50


def test_both_versions_are_drawn_where_both_were_measured() -> None:
    alone = draw_timeline(EVENTS, [measured(40)])
    beside = draw_timeline(EVENTS, [measured(40, baseline=0.1)])
    # The legend names stable in either.
    assert coloured(beside, STABLE).sum() > coloured(alone, STABLE).sum()


def test_the_weight_that_was_achieved_is_a_step_where_it_was_achieved() -> None:
    def middle(achieved: float) -> float:
        events = [Event(at(0), "canary", asked=0, achieved=0), Event(at(50), "analyze", asked=80, achieved=achieved)]
        line = coloured(draw_timeline(events, now=at(100)), CANDIDATE)
        columns = line[:, int(line.shape[1] * 0.75)].nonzero()[0]
        return float(columns.mean())

    # Higher up in the picture is a smaller row.
    assert middle(80) < middle(40) < middle(10)
    half = coloured(
        draw_timeline([Event(at(0), "canary", asked=0, achieved=0), Event(at(50), "analyze", asked=80, achieved=80)], now=at(100)),
        CANDIDATE,
    )
    upright = half.sum(axis=0).argmax() / half.shape[1]
    assert 0.5 < upright < 0.6


def test_a_pause_is_told_by_its_colour() -> None:
    assert not coloured(draw_timeline(EVENTS), YELLOW).any()
    assert coloured(draw_timeline([*EVENTS[:3], Event(at(40), "paused")], now=at(60)), YELLOW).any()


def test_panels_without_data_are_left_out() -> None:
    heights = [
        pixels(draw_timeline([Event(at(0), "prepare")])).shape[0],
        pixels(draw_timeline(EVENTS)).shape[0],
        pixels(draw_timeline(EVENTS, [measured(40, metric="load")])).shape[0],
        pixels(draw_timeline(EVENTS, [measured(40)])).shape[0],
        pixels(draw_timeline(EVENTS, [measured(40), measured(40, metric="latency_p99_ms")])).shape[0],
    ]
    assert heights == sorted(set(heights))


@pytest.mark.parametrize("seconds", [0, 1, 100, 5_000, 100_000, 1_000_000])
def test_any_length_of_time_can_be_drawn(seconds: int) -> None:
    events = [Event(at(0), "prepare"), Event(at(seconds), "superseded")]
    assert pixels(draw_timeline(events)).shape[1] > 1000


def test_measurements_without_a_value_can_be_drawn() -> None:
    nothing = Measurement(metric="error_rate", outcome="inconclusive", at=at(40))
    assert pixels(draw_timeline(EVENTS, [nothing])).shape[0] < pixels(draw_timeline(EVENTS, [nothing, measured(50)])).shape[0]


def test_the_same_rollout_gives_the_same_picture() -> None:
    assert draw_timeline(EVENTS, [measured(40)]) == draw_timeline(EVENTS, [measured(40)])


def test_a_rollout_without_events_is_no_rollout() -> None:
    with pytest.raises(ValueError, match="has no begin"):
        draw_timeline([])


def test_a_clock_that_goes_back_in_the_middle_is_still_drawn() -> None:
    events = [*EVENTS[:2], Event(at(-3600), "analyze", asked=50, achieved=48), Event(at(60), "promoted", asked=100, achieved=100)]
    image = Image.open(io.BytesIO(draw_timeline(events, [measured(-3500), measured(40)], now=at(10))))
    assert min(image.size) > 100
