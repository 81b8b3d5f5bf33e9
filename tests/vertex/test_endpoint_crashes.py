"""Killed before and after every write, overtaken, and two at once: the retry always ends where the uninterrupted rollout would."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from components.core.errors import ConflictError, RolloutError, UsageError
from serving.rollout.endpoint.service import Service
from tests.vertex.endpoint_site import Bucket, EndpointSite, wrong

pytestmark = pytest.mark.slow

EVERY = os.environ.get("DUAL_CRASH_MATRIX") == "all"
"""Of this process: fixtures clear the environment."""


class Killed(BaseException):
    """The process is gone: nothing of ours may catch it."""


@dataclass
class Killer:
    """Ends the process at one write, before or after it; 0 never does."""

    at: int = 0
    after: bool = False
    count: int = 0

    def __call__(self, write: Any, *args: Any, **kwargs: Any) -> Any:
        self.count += 1
        # A write may be made of others.
        number = self.count
        if number == self.at and not self.after:
            raise Killed
        made = write(*args, **kwargs)
        if number == self.at:
            raise Killed
        return made


@contextmanager
def writes_of(killer: Killer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every write to the store and to Google goes through the killer."""
    with monkeypatch.context() as patched:
        for owner, name in ((Bucket, "swap"), (Bucket, "put"), (Bucket, "put_if_absent"), (Service, "_write")):
            original = getattr(owner, name)
            patched.setattr(owner, name, lambda self, *a, _original=original, **k: killer(_original, self, *a, **k))
        yield


def check_live(site: EndpointSite) -> None:
    """At every write: all traffic is somebody's who is deployed; it never sums to anything else."""

    def look(_: str) -> None:
        for endpoint in site.fake.endpoints.values():
            split = {k: v for k, v in endpoint["trafficSplit"].items() if v}
            assert sum(split.values()) in (0, 100)
            assert set(split) <= {each["id"] for each in endpoint["deployedModels"]}
            assert len(endpoint["deployedModels"]) <= 3
            if site.channel():
                assert split, "nobody answers"

    site.fake.watch.append(look)


def settled_on(site: EndpointSite, release: str) -> None:
    assert site.is_settled(release), (site.fake.shares(), site.fake.deployed(), site.channel(), site.said[-8:])
    assert site.state().is_over()
    versions = [each["labels"]["dual-release"] for each in site.fake.models["dual-classifier"]]
    assert len(versions) == len(set(versions)), "uploaded twice"


def killed_at(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], at: int, *, after: bool) -> bool:
    """Whether the process was killed before it was through."""
    with writes_of(Killer(at, after), monkeypatch):
        try:
            act()
        except Killed:
            return True
    return False


def goes_back(site: EndpointSite, release: str, run: str) -> None:
    with pytest.raises(RolloutError):
        site.ship(release, run=run)


def moments() -> Iterator[tuple[int, bool]]:
    """(number of the write, whether after it): all of them, or one in seven, and each kind of it in turn."""
    every = EVERY
    for at in count(1, 1 if every else 7):
        yield from [(at, False), (at, True)] if every else [(at, at % 2 == 0)]


def test_a_good_release_killed_at_every_write(site: EndpointSite, monkeypatch: pytest.MonkeyPatch) -> None:
    check_live(site)
    releases = [site.release(), site.release()]
    site.ship(releases[0])
    at = 0
    for at, after in moments():
        release = releases[site.channel() == releases[0]]
        if not killed_at(monkeypatch, lambda r=release: site.ship(r, run="killed"), at, after=after):
            break
        site.ship(release, run="again")
        settled_on(site, release)
    assert at > 20


def test_a_bad_release_killed_at_every_write(site: EndpointSite, monkeypatch: pytest.MonkeyPatch) -> None:
    check_live(site)
    first = site.release()
    site.ship(first)
    at = 0
    for at, after in moments():
        bad = site.release()
        site.fake.behaviours[bad] = wrong()
        if not killed_at(monkeypatch, lambda r=bad: goes_back(site, r, "killed"), at, after=after):
            break
        goes_back(site, bad, "again")
        settled_on(site, first)
        assert site.state().phase == "aborted"
    assert at > 12


def test_an_undo_killed_at_every_write(site: EndpointSite, monkeypatch: pytest.MonkeyPatch) -> None:
    check_live(site)
    first, second = site.release(), site.release()
    site.ship(first)
    at = 0
    for at, after in moments():
        site.ship(second)
        if not killed_at(monkeypatch, site.undo, at, after=after):
            break
        if site.channel() == second or not site.state().is_over():
            # What a person does who sees that it was not through.
            site.undo()
        settled_on(site, first)
    assert at > 10


def test_a_first_deployment_killed_at_every_write(monkeypatch: pytest.MonkeyPatch, new_site: Callable[[], EndpointSite]) -> None:
    at = 0
    for at, after in moments():
        site = new_site()
        release = site.release()
        if not killed_at(monkeypatch, lambda s=site, r=release: s.ship(r, run="killed"), at, after=after):
            break
        site.ship(release, run="again")
        settled_on(site, release)
        assert len(site.fake.endpoints) == 1
    assert at > 14


@pytest.mark.parametrize("at", range(1, 8, 2))
def test_a_stalled_process_does_no_harm_when_it_wakes(site: EndpointSite, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """It stops in the middle of a write to Google, another process brings the same release home, and then it goes on."""
    check_live(site)
    first, second = site.release(), site.release()
    site.ship(first)
    turn, original = {"count": 0}, Service._write

    def stalling(self: Service, *args: Any, **kwargs: Any) -> Any:
        turn["count"] += 1
        if turn["count"] == at:
            monkeypatch.setattr(Service, "_write", original)
            site.ship(second, run="other")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Service, "_write", stalling)
    with contextlib.suppress(ConflictError, UsageError):
        site.ship(second, run="stalled")
    monkeypatch.undo()
    assert turn["count"] >= at
    assert (site.fake.shares(), site.channel()) == ({second: 100}, second)
    assert site.state().run_id in ("other", "stalled")


def test_two_processes_at_once_bring_one_release_home(site: EndpointSite) -> None:
    check_live(site)
    first, second = site.release(), site.release()
    site.ship(first)
    failures: list[BaseException] = []

    def run(name: str) -> None:
        try:
            site.ship(second, run=name)
        except ConflictError as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(failures) <= 1, failures
    settled_on(site, second)
