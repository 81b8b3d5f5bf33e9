"""Rollouts on real pods under a constant load of predict requests: nothing fails, nothing is wrong, and every answer names its release."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.load import Answered, Load, share_of
from components.core.channel import read_channel
from serving.rollout.cluster.objects import live_of
from tests.live.cluster import LiveSite
from tests.live.steps import Step, answers_between, spans, state_of, wait_for, wait_for_phase

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]
RATE = 40.0


@pytest.fixture
def load(site: LiveSite) -> Callable[[], Load]:
    return lambda: Load(site.target(), rate=RATE, clients=6, connection_seconds=0.3)


def ship(site: LiveSite, folder: Path, release: str, **plan: object) -> Step:
    """`dual rollout start` of a release by name, to its end."""
    step = Step(site, folder, "start", site.releases[release], settings=site.settings(**plan))
    step.wait()
    return step


def first(site: LiveSite, folder: Path) -> None:
    step = ship(site, folder, "a")
    assert "promoted" in step.output, step.output
    site.await_service()


def promoted(site: LiveSite) -> str:
    """The release that everything agrees on: channel, live Service, state."""
    channel, state = read_channel(site.releases.store), state_of(site)
    assert channel is not None
    assert state is not None
    live = live_of(site.api.get("Service", "classifier"))
    assert not live.shared
    assert live.stable.startswith(channel[0].release)
    return channel[0].release


def problems(answers: list[Answered]) -> list[str]:
    return [f"{each.protocol} {each.problem}" for each in answers if each.problem]


def releases_in(answers: list[Answered]) -> set[str]:
    return {each.release for each in answers if each.release}


def test_a_good_release_takes_over_by_weights_that_are_true(site: LiveSite, tmp_path: Path, load: Callable[[], Load]) -> None:
    first(site, tmp_path)
    a, b = site.releases["a"], site.releases["b"]
    with load() as running:
        running.wait_for(100)
        step = ship(site, tmp_path, "b", analysis={"count": 6})
        running.wait_for(len(running.answers) + 100)
    assert "promoted" in step.output, step.output
    assert problems(running.answers) == []
    state = state_of(site)
    assert state is not None
    for event, begin, end in spans(state.events):
        seen = answers_between(running.answers, begin + 1.5, end)
        if event.phase in ("prepare", "validate_preview"):
            assert releases_in(seen) <= {a}
        if event.phase == "analyze":
            assert event.achieved is not None
            assert share_of(seen, b) == pytest.approx(event.achieved, abs=20), f"{len(seen)} answers"
        if event.phase in ("drain", "promoted"):
            assert releases_in(seen) <= {b}
    assert promoted(site) == b


@pytest.mark.parametrize(("bad", "why"), [("wrong", "golden"), ("errors", "preview"), ("broken", "will not get ready")])
def test_a_bad_release_never_sees_live_traffic(site: LiveSite, tmp_path: Path, load: Callable[[], Load], bad: str, why: str) -> None:
    first(site, tmp_path)
    with load() as running:
        running.wait_for(50)
        step = ship(site, tmp_path, bad)
        running.wait_for(len(running.answers) + 50)
    assert step.wait() == 1
    assert why in step.output
    assert problems(running.answers) == []
    assert releases_in(running.answers) == {site.releases["a"]}
    assert promoted(site) == site.releases["a"]


def test_a_slow_release_is_left(site: LiveSite, tmp_path: Path, load: Callable[[], Load]) -> None:
    first(site, tmp_path)
    with load() as running:
        running.wait_for(50)
        step = ship(site, tmp_path, "slow", analysis={"latency_p99_ms": {"max": 250.0}, "count": 2})
        running.wait_for(len(running.answers) + 50)
    assert step.wait() == 1, step.output
    assert "latency_p99_ms" in step.output
    assert problems(running.answers) == []
    assert promoted(site) == site.releases["a"]


def test_undo_under_load_is_quick_while_the_old_pods_are_up(site: LiveSite, tmp_path: Path, load: Callable[[], Load]) -> None:
    first(site, tmp_path)
    with load() as running:
        step = Step(site, tmp_path, "start", site.releases["b"], settings=site.settings(strategy="blue-green", scale_down_delay=120.0))
        wait_for_phase(site, "drain", step=step)
        wait_for(lambda: promoted_is(site, "b"), "the publication of b")
        began = time.monotonic()
        undo = Step(site, tmp_path, "undo", settings=None)
        wait_for_phase(site, "post_analysis", "drain", "rolled_back")
        wait_for(lambda: live_is(site, "a"), "live traffic back at a")
        took = time.monotonic() - began
        step.kill()
        wait_for(lambda: promoted_is(site, "a"), "the channel back at a")
        undo.kill()
        running.wait_for(len(running.answers) + 250)
    assert problems(running.answers) == []
    assert took < 30
    assert releases_in(running.answers[-50:]) == {site.releases["a"]}


def promoted_is(site: LiveSite, release: str) -> bool:
    channel = read_channel(site.releases.store)
    return channel is not None and channel[0].release == site.releases[release]


def live_is(site: LiveSite, release: str) -> bool:
    live = live_of(site.api.get("Service", "classifier"))
    return not live.shared and live.stable.startswith(site.releases[release])


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_moments_and_run_again(site: LiveSite, tmp_path: Path, load: Callable[[], Load], seed: int) -> None:
    first(site, tmp_path)
    chance = random.Random(seed)  # noqa: S311 - nothing secret
    with load() as running:
        for _ in range(4):
            step = Step(site, tmp_path, "start", site.releases["b"], settings=site.settings())
            deadline = time.monotonic() + chance.uniform(3, 15)
            wait_for(lambda until=deadline, one=step: time.monotonic() > until or not one.is_running(), "a random moment")
            step.kill()
        last = ship(site, tmp_path, "b")
        running.wait_for(len(running.answers) + 100)
    assert last.wait() == 0, last.output
    assert problems(running.answers) == []
    assert promoted(site) == site.releases["b"]


@pytest.mark.parametrize("trouble", ["kubelet", "kube-apiserver", "pod"])
def test_trouble_in_the_middle(site: LiveSite, tmp_path: Path, load: Callable[[], Load], trouble: str) -> None:
    first(site, tmp_path)
    with load() as running:
        step = Step(site, tmp_path, "start", site.releases["b"], settings=site.settings(analysis={"count": 4}))
        wait_for_phase(site, "analyze", step=step)
        if trouble == "pod":
            victim = next(pod for pod in site.pods() if pod["metadata"]["labels"]["dual.dev/revision"].startswith(site.releases["a"]))
            site.cluster.kubectl("-n", site.namespace, "delete", "pod", victim["metadata"]["name"], "--wait=false")
        else:
            site.cluster.rig("restart", trouble)
        assert step.wait() == 0, step.output
        running.wait_for(len(running.answers) + 100)
    assert problems(running.answers) == []
    assert promoted(site) == site.releases["b"]
