"""Killed at every moment, stopped before every write and overtaken: the ending is right, and no moment is wrong.

The API server is real; pods get ready at once (cluster_site.Controller). Invariants are checked after each write of each victim.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.crash.cluster_site import Controller
from tests.crash.conftest import ApiOf
from tests.crash.harness import Harness, Scenario, Started
from tests.crash.mutants import MUTANTS
from tests.crash.victims import Zygotes

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1500)]
EVERY = os.environ.get("DUAL_CRASH_MATRIX") == "all"
"""Whether each course is gone through, which takes half an hour; else one or two of each kind, and all of canary and blue-green."""
ROUTE = "promoted by route"
FIRST: dict[str, Any] = {"start": "nothing", "release": "a", "stays": ""}
UNDO: dict[str, Any] = {"release": "a", "kind": "undo", "stays": "b"}
SCENARIOS = [
    Scenario("canary"),
    Scenario("canary", "analysis"),
    Scenario("canary", "post"),
    Scenario("blue-green"),
    Scenario("blue-green", "preview"),
    Scenario("blue-green", "post"),
    Scenario("canary", start=ROUTE),
    Scenario("canary", "analysis", start=ROUTE),
    Scenario("canary", "post", start=ROUTE),
    Scenario("recreate"),
    Scenario("recreate", "post"),
    Scenario("canary", **FIRST),
    Scenario("canary", "post", **FIRST),
    Scenario("canary", start="draining", **UNDO),
    Scenario("canary", start="followed", **UNDO),
    Scenario("canary", "preview", start="followed", **UNDO),
    Scenario("canary", start="canary under way", release="c"),
    Scenario("canary", "analysis", start="canary under way", release="c"),
    Scenario("canary", start="canary by route under way", release="c"),
    Scenario("canary", "preview", start="canary by route under way", release="c"),
    Scenario("blue-green", start="switched", release="c"),
    Scenario("recreate", start="recreate switched", release="c"),
    Scenario("recreate", "post", start="recreate switched", release="c"),
]
OVERTAKEN = [
    *((each, by) for each in (SCENARIOS[0], SCENARIOS[1], SCENARIOS[3], SCENARIOS[5]) for by in ("same", "c")),
    *((Scenario("canary", fails, start=ROUTE), by) for fails, by in (("", "same"), ("analysis", "c"))),
    *((Scenario("recreate", fails), by) for fails, by in (("", "c"), ("post", "same"))),
    *((Scenario("canary", fails, **FIRST), by) for fails, by in (("", "same"), ("post", "b"))),
    *((Scenario("canary", start="draining", **UNDO), by) for by in ("same", "c")),
    (Scenario("canary", start="followed", **UNDO), "same"),
    *((Scenario("canary", start=f"canary{how} under way", release="c"), by) for how, by in (("", "same"), (" by route", "b"))),
    (Scenario("blue-green", start="switched", release="c"), "b"),
]
KILLED = SCENARIOS if EVERY else [SCENARIOS[each] for each in (0, 1, 2, 3, 4, 5, 6, 9, 11, 13, 17, 20)]
STOPPED = OVERTAKEN if EVERY else [OVERTAKEN[each] for each in (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 17)]


@pytest.fixture
def harness(started: Started, api_of: ApiOf, zygotes: Zygotes, controller: Controller, gateway_api: None) -> Harness:
    del gateway_api
    return Harness(started, api_of, zygotes, controller)


@pytest.mark.parametrize("scenario", KILLED, ids=str)
def test_killed_at_every_moment(harness: Harness, scenario: Scenario) -> None:
    deaths = harness.course(scenario).deaths()
    assert harness.wrong == []
    harness.all(partial(harness.killed, scenario, *death) for death in deaths)
    assert harness.wrong == []
    assert harness.cases == len(deaths) + 1 > 10


@pytest.mark.parametrize(("scenario", "by"), STOPPED, ids=str)
def test_stopped_before_every_write_and_overtaken(harness: Harness, scenario: Scenario, by: str) -> None:
    writes = harness.course(scenario).writes
    harness.all(partial(harness.stopped, scenario, by, write) for write in range(1, writes + 1))
    assert harness.wrong == []


CATCHES: dict[str, tuple[Callable[..., None], str]] = {
    "scale_down_before_the_switch": (partial(Harness.killed, scenario=SCENARIOS[3], moment="before"), "live traffic goes to 0 ready"),
    "save_before_acting": (
        partial(Harness.killed, scenario=Scenario("canary", "analysis"), moment="after"),
        "is over (aborted) and weight is left",
    ),
    "no_epoch_test": (partial(Harness.stopped, scenario=Scenario("canary", "analysis"), by="c"), "bbbbbbbbbbbb-2a01cd has 1 pods"),
    "weight_before_ready": (
        partial(Harness.killed, scenario=Scenario("canary"), moment="before", unready=True),
        "weight without a ready candidate",
    ),
    "save_without_comparing": (partial(Harness.stopped, scenario=Scenario("blue-green"), by="c"), "the channel names bbbbbbbbbbbb"),
    "weight_is_not_taken_back": (
        partial(Harness.killed, scenario=Scenario("canary", "analysis", start=ROUTE), moment="before"),
        "is over (aborted) and the route gives 25 %",
    ),
    "preview_before_the_weight_is_gone": (
        partial(Harness.killed, scenario=Scenario("canary", start="canary by route under way", release="c"), moment="before"),
        "of which no pod is ready",
    ),
    "two_at_a_time": (partial(Harness.killed, scenario=Scenario("recreate"), moment="before"), "where there is room for one of them"),
}
"""Which cases catch a mutant, and what they must say of it."""


@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_the_harness_catches_mistakes(harness: Harness, mutant: str) -> None:
    case, found = CATCHES[mutant]
    harness.all((partial(case, harness, write=write, mutant=mutant) for write in range(1, 26)), until_wrong=True)
    assert any(found in wrong for wrong in harness.wrong), f"{mutant} was not caught: {harness.wrong}"
