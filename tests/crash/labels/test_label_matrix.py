"""Rollouts by labels killed at every moment, stopped before every write and overtaken: the ending is right, and no moment is wrong.

The API server is real, the holders are; servers are in memory. Invariants are checked after each write of each victim, from the objects and
from what servers say; and no pod's label `stable` may ever lead nowhere once it led somewhere.
"""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from serving.rollout.cluster.api import Api
from serving.rollout.cluster.holding import Holding, holdings_of
from serving.rollout.cluster.names import Names
from serving.rollout.cluster.objects import Live, live_of
from serving.rollout.cluster.state import Book
from tests.crash.cluster_site import RELEASES, REPLICAS_WANTED, FileChannel
from tests.crash.conftest import ApiOf
from tests.crash.harness import Harness, Scenario
from tests.crash.labels.conftest import Begin
from tests.crash.labels.kubelets import Kubelets
from tests.crash.labels.mutants import MUTANTS
from tests.crash.labels.site import channel_at, gaps, live_pods, stable_of
from tests.crash.labels.zygotes import LabelZygotes
from tests.crash.victims import Order

EVERY = os.environ.get("DUAL_CRASH_MATRIX") == "all"
pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1500)]
FIRST: dict[str, Any] = {"start": "nothing", "release": "a", "stays": ""}
UNDO: dict[str, Any] = {"release": "a", "kind": "undo", "stays": "b"}
SCENARIOS = [
    Scenario("labels"),
    Scenario("labels", "preview"),
    Scenario("labels", "analysis"),
    Scenario("labels", "post"),
    Scenario("labels", **FIRST),
    Scenario("labels", "post", **FIRST),
    Scenario("labels", start="template changed"),
    Scenario("labels", "post", start="template changed"),
    Scenario("labels", start="draining", **UNDO),
    Scenario("labels", start="followed", **UNDO),
    Scenario("labels", "preview", start="followed", **UNDO),
    Scenario("labels", start="under way", release="c"),
    Scenario("labels", start="switched", release="c"),
    Scenario("labels", "analysis", start="switched", release="c"),
]
OVERTAKEN = [
    *((Scenario("labels", fails), by) for fails in ("", "analysis", "post") for by in ("same", "c")),
    (Scenario("labels", start="template changed"), "c"),
    (Scenario("labels", start="draining", **UNDO), "c"),
    (Scenario("labels", start="switched", release="c"), "b"),
]
KILLED = SCENARIOS if EVERY else [SCENARIOS[each] for each in (0, 2, 3, 8)]
STOPPED = OVERTAKEN if EVERY else [OVERTAKEN[each] for each in (0, 3)]


class LabelHarness(Harness):
    """Compares endings by what pods hold and answer."""

    controller: Kubelets  # pyright: ignore[reportIncompatibleVariableOverride]

    def close(self, order: Order, ending: str, what: str, code: int = 0, expected: int = 0) -> None:
        """Compare the ending with the right one."""
        self.cases += 1
        self.controller.attend(order.namespace)
        api, channel = self.api_of(order.namespace), channel_at(order.channel)
        found = [
            *_ending(api, channel, RELEASES[ending] if ending else "", self.controller.address),
            *gaps(self.controller, order.namespace),
        ]
        if code != expected:
            found.append(f"exit code {code}")
        log = Path(f"{order.channel}.violations")
        found += log.read_text().splitlines() if log.exists() else []
        self.wrong += [f"{what}: {each}" for each in found]


def _ending(api: Api, channel: FileChannel, release: str, pages: str) -> Iterator[str]:
    state = Book(api, Names(namespace=api.namespace)).read()
    service = api.get("Service", "classifier")
    live, holdings = live_of(service), holdings_of(service)
    if channel.release() != release:
        yield f"the channel names {channel.release()}, not {release}"
    if state is None or not state.is_over():
        yield f"the rollout is not over: {state.phase if state else None}"
    if not release:
        if live != Live("", shared=False):
            yield f"the live Service selects {live}"
        return
    if holdings.get(live.stable) != Holding(stable=release, releases={release: ""}):
        yield f"{live.stable} is to hold {holdings}"
    pods = live_pods(api)
    if len(pods) != REPLICAS_WANTED:
        yield f"{len(pods)} pods are live"
    for pod, letter in stable_of(pages, api.namespace, pods).items():
        if RELEASES.get(letter) != release:
            yield f"{pod} answers as {letter or 'nobody'}"
    for deployment in api.list("Deployment", "app.kubernetes.io/name=classifier"):
        name, replicas = deployment["metadata"]["name"], deployment["spec"]["replicas"]
        if name not in ("classifier", f"classifier-{live.stable}") and replicas:
            yield f"{name} has {replicas} pods"


@pytest.fixture
def harness(begun: Begin, label_api_of: ApiOf, label_zygotes: LabelZygotes, kubelets: Kubelets) -> LabelHarness:
    return LabelHarness(begun, label_api_of, label_zygotes, kubelets)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("scenario", KILLED, ids=str)
def test_killed_at_every_moment(harness: LabelHarness, scenario: Scenario) -> None:
    deaths = harness.course(scenario).deaths()
    assert harness.wrong == []
    harness.all(partial(harness.killed, scenario, *death) for death in deaths)
    assert harness.wrong == []
    assert harness.cases == len(deaths) + 1 > 10


@pytest.mark.parametrize(("scenario", "by"), STOPPED, ids=str)
def test_stopped_before_every_write_and_overtaken(harness: LabelHarness, scenario: Scenario, by: str) -> None:
    writes = harness.course(scenario).writes
    harness.all(partial(harness.stopped, scenario, by, write) for write in range(1, writes + 1))
    assert harness.wrong == []


def slow_holders(harness: LabelHarness, scenario: Scenario, moment: str, write: int, mutant: str = "") -> None:
    """Nobody dies, but what is written takes a moment to be noticed."""
    del moment, write
    order = harness.order(scenario, mutant=mutant, run_id="slow")
    harness.controller.wards[order.namespace].seconds = 0.3
    with harness.zygotes.lent() as zygote:
        code = zygote.run(order)["code"]
    harness.close(order, scenario.ending(), f"{scenario}, slow holders", code, scenario.code())


CATCHES: dict[str, tuple[Callable[..., None], str]] = {
    "believe_the_record": (partial(slow_holders, scenario=Scenario("labels"), moment="after"), "answers as a"),
    "forget_what_was_before": (
        partial(LabelHarness.killed, scenario=Scenario("labels", "post"), moment="after"),
        "the promoted release is not held",
    ),
    "leave_the_label": (partial(LabelHarness.killed, scenario=Scenario("labels", "post"), moment="after"), "answers as b"),
}
"""Which cases catch a mutant, and what they must say of it."""


# What the first one makes wrong is seen at one moment or another: by eye, until it is said at one.
@pytest.mark.parametrize("mutant", sorted(MUTANTS) if EVERY else ["forget_what_was_before", "leave_the_label"])
def test_the_harness_catches_mistakes(harness: LabelHarness, mutant: str) -> None:
    case, found = CATCHES[mutant]
    harness.all((partial(case, harness, write=write, mutant=mutant) for write in range(1, 12)), until_wrong=True)
    assert any(found in wrong for wrong in harness.wrong), f"{mutant} was not caught: {harness.wrong}"


def test_holders_that_are_slow_change_no_ending(harness: LabelHarness) -> None:
    slow_holders(harness, Scenario("labels"), "", 0)
    slow_holders(harness, Scenario("labels", "post"), "", 0)
    assert harness.wrong == []
