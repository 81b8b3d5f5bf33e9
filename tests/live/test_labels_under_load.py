"""Rollouts by labels in real pods under a constant load: two versions in the same pods, and no request notices anything of it."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from benchmarks.load import Answered, Load
from components.core.channel import read_channel
from serving.rollout.cluster.holding import holdings_of
from tests.live.cluster import LiveCluster, LiveSite, live_site
from tests.live.conftest import KINDS
from tests.live.releases import make_releases
from tests.live.steps import Step, answers_between, spans, state_of, wait_for, wait_for_phase

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]
RATE = 30.0


@pytest.fixture
def site(cluster: LiveCluster, tmp_path: Path) -> Iterator[LiveSite]:
    """A namespace with the component labels and a store of fresh releases, of which a is rolled out."""
    with ExitStack() as stack:
        namespace, releases = f"labels-{uuid4().hex[:6]}", make_releases(tmp_path, KINDS)
        made = stack.enter_context(live_site(cluster, releases, tmp_path / "overlay", namespace, strategy="labels"))
        step = ship(made, tmp_path, "a")
        assert "promoted" in step.output, step.output
        made.await_service()
        yield made


@pytest.fixture
def load(site: LiveSite) -> Callable[[], Load]:
    return lambda: Load(site.target(), rate=RATE, clients=6, connection_seconds=0.3)


def ship(site: LiveSite, folder: Path, release: str, **plan: object) -> Step:
    """`dual rollout start` of a release by name, to its end."""
    step = Step(site, folder, "start", site.releases[release], settings=site.settings(**plan))
    step.wait()
    return step


def problems(answers: list[Answered]) -> list[str]:
    return [f"{each.protocol} {each.problem}" for each in answers if each.problem]


def releases_in(answers: list[Answered]) -> set[str]:
    return {each.release for each in answers if each.release}


def pods(site: LiveSite) -> dict[str, int]:
    """Pod → restarts of its containers."""
    return {
        pod["metadata"]["name"]: sum(each["restartCount"] for each in pod["status"].get("containerStatuses", []))
        for pod in site.pods()
        if not pod["metadata"].get("deletionTimestamp")
    }


def agreed(site: LiveSite) -> str:
    """The release that everything agrees on: channel, record, state; it is the only one that is held."""
    channel, state = read_channel(site.releases.store), state_of(site)
    (holding,) = holdings_of(site.api.get("Service", "classifier")).values()
    assert channel is not None
    assert state is not None
    assert state.is_over()
    assert holding.releases.keys() == {holding.stable} == {channel[0].release}
    return holding.stable


def published(site: LiveSite, release: str) -> bool:
    channel = read_channel(site.releases.store)
    return channel is not None and channel[0].release == site.releases[release]


def test_a_good_release_takes_over_in_the_same_pods(site: LiveSite, tmp_path: Path, load: Callable[[], Load]) -> None:
    a, b = site.releases["a"], site.releases["b"]
    before = pods(site)
    with load() as running:
        running.wait_for(100)
        step = ship(site, tmp_path, "b", analysis={"count": 3})
        running.wait_for(len(running.answers) + 100)
    assert "promoted" in step.output, step.output
    assert problems(running.answers) == []
    assert pods(site) == before
    state = state_of(site)
    assert state is not None
    assert [event.phase for event in state.events][-6:] == ["validate_preview", "analyze", "promote", "post_analysis", "drain", "promoted"]
    for event, begin, end in spans(state.events):
        seen = answers_between(running.answers, begin, end)
        if event.phase in ("prepare", "validate_preview", "analyze"):
            assert releases_in(seen) <= {a}
        if event.phase in ("post_analysis", "drain", "promoted"):
            assert releases_in(seen) <= {b}
    assert agreed(site) == b


@pytest.mark.parametrize(("bad", "why"), [("wrong", "golden"), ("errors", "preview"), ("broken", "can't load release")])
def test_a_bad_release_never_sees_live_traffic(site: LiveSite, tmp_path: Path, load: Callable[[], Load], bad: str, why: str) -> None:
    before = pods(site)
    with load() as running:
        running.wait_for(50)
        step = ship(site, tmp_path, bad)
        running.wait_for(len(running.answers) + 50)
    assert step.wait() == 1
    assert why in step.output
    assert problems(running.answers) == []
    assert releases_in(running.answers) == {site.releases["a"]}
    assert pods(site) == before
    assert agreed(site) == site.releases["a"]


def test_undo_under_load_is_the_labels_way_back(site: LiveSite, tmp_path: Path, load: Callable[[], Load]) -> None:
    with load() as running:
        step = Step(site, tmp_path, "start", site.releases["b"], settings=site.settings(scale_down_delay=120.0))
        wait_for_phase(site, "drain", step=step)
        wait_for(lambda: published(site, "b"), "the publication of b")
        began = time.monotonic()
        undo = Step(site, tmp_path, "undo", settings=None)
        wait_for_phase(site, "post_analysis", "rolled_back", step=undo)
        took = time.monotonic() - began
        step.kill()
        assert undo.wait() == 0, undo.output
        running.wait_for(len(running.answers) + 100)
    assert "the version of before is still loaded" in undo.output
    assert problems(running.answers) == []
    assert took < 30
    assert releases_in(running.answers[-50:]) == {site.releases["a"]}
    assert agreed(site) == site.releases["a"]


def test_a_pod_that_is_deleted_and_a_step_that_is_killed_in_the_middle(site: LiveSite, tmp_path: Path, load: Callable[[], Load]) -> None:
    chance = random.Random(1)  # noqa: S311 - nothing secret
    with load() as running:
        for _ in range(3):
            step = Step(site, tmp_path, "start", site.releases["b"], settings=site.settings(analysis={"count": 4}))
            deadline = time.monotonic() + chance.uniform(3, 12)
            wait_for(lambda until=deadline, one=step: time.monotonic() > until or not one.is_running(), "a random moment")
            step.kill()
        victim = next(iter(pods(site)))
        site.cluster.kubectl("-n", site.namespace, "delete", "pod", victim, "--wait=false")
        last = ship(site, tmp_path, "b")
        running.wait_for(len(running.answers) + 100)
    assert last.wait() == 0, last.output
    assert victim not in pods(site)
    assert problems(running.answers) == []
    assert releases_in(running.answers[-50:]) == {site.releases["b"]}
    assert agreed(site) == site.releases["b"]
