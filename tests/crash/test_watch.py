"""Waiting for a change of the state: it is told at once, nothing is missed when connections break, and nobody asks again and again."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from serving.rollout.cluster import watch
from serving.rollout.cluster.api import Api, ExpiredError, ForbiddenError, UnavailableError
from serving.rollout.cluster.watch import Doorbell, growing_pauses
from tests.crash.fault_proxy import Call, FaultProxy
from tests.crash.stage import Stage

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
STATE = "classifier-rollout"


@pytest.fixture
def proxy(stage: Stage) -> Iterator[FaultProxy]:
    with FaultProxy(stage.api) as running:
        yield running


@contextmanager
def waiting(api: Api, version: str, seconds: float = 30.0) -> Iterator[threading.Thread]:
    """Somebody who waits for the state to change."""
    thread = threading.Thread(target=Doorbell(api, "ConfigMap", STATE).wait, args=(version, seconds), daemon=True)
    thread.start()
    yield thread
    thread.join(10)
    assert not thread.is_alive(), "it never rang"


def version_of(api: Api) -> str:
    return api.find_listed("ConfigMap", STATE)[1]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def watches(proxy: FaultProxy) -> list[Call]:
    return [call for call in proxy.calls if call.is_watch()]


def test_a_listed_object_is_the_object(stage: Stage) -> None:
    found, version = stage.api.find_listed("ConfigMap", STATE)
    assert found is not None
    assert found["data"] == stage.api.get("ConfigMap", STATE)["data"]
    assert int(version) >= int(found["metadata"]["resourceVersion"])
    assert stage.api.find_listed("ConfigMap", "nobody")[0] is None


def test_it_rings_when_the_object_changes_and_only_then(stage: Stage, proxy: FaultProxy) -> None:
    api = proxy.api(stage.api.namespace)
    with waiting(api, version_of(api)) as thread:
        until(lambda: bool(proxy.watching))
        stage.api.create("ConfigMap", {"metadata": {"name": "another"}})
        thread.join(0.5)
        assert thread.is_alive()
        stage.ask("undo")()
    assert len(watches(proxy)) == 1


def test_it_rings_for_what_happened_before_the_watch_began_and_for_a_deletion(stage: Stage) -> None:
    before = version_of(stage.api)
    stage.ask("undo")()
    with waiting(stage.api, before):
        pass
    before = version_of(stage.api)
    stage.delete("ConfigMap", STATE)
    with waiting(stage.api, before):
        pass


def test_it_ends_when_the_time_is_over(stage: Stage) -> None:
    began = time.monotonic()
    with waiting(stage.api, version_of(stage.api), seconds=1.2):
        pass
    assert 1.0 < time.monotonic() - began < 8


def test_a_watch_that_breaks_goes_on_where_it_stood(stage: Stage, proxy: FaultProxy) -> None:
    api = proxy.api(stage.api.namespace)
    version = version_of(api)
    with waiting(api, version):
        until(lambda: bool(proxy.watching))
        # What happens while nobody listens is heard afterwards.
        proxy.fault = lambda _: "dropped"
        proxy.cut_watches()
        until(lambda: len(watches(proxy)) > 1)
        stage.ask("undo")()
        proxy.fault = lambda _: ""
    assert {f"resourceVersion={version}" in call.path for call in watches(proxy)} == {True}


@pytest.mark.parametrize("fault", ["dropped", "503", "cut", "page"])
def test_what_stays_broken_is_left_to_whoever_waits_after_growing_pauses(stage: Stage, proxy: FaultProxy, fault: str) -> None:
    api = proxy.api(stage.api.namespace)
    proxy.fault = lambda call: fault if call.is_watch() else ""  # pyright: ignore[reportAttributeAccessIssue]
    slept: list[float] = []
    bell = Doorbell(api, "ConfigMap", STATE, slept.append)
    for _ in range(3):
        bell.wait(version_of(api), 5.0)
    # As often as the pauses let it, and they are not forgotten from one wait to the next.
    assert len(watches(proxy)) == len(slept) == 12
    assert sum(slept[-4:]) > 10 * sum(slept[:4])
    assert max(slept) <= 15


@pytest.mark.parametrize("fault", ["expired", "410"])
def test_a_version_that_is_forgotten_is_looked_up_anew(stage: Stage, proxy: FaultProxy, fault: str) -> None:
    api = proxy.api(stage.api.namespace)
    proxy.fault = lambda call: fault if call.is_watch() else ""  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ExpiredError):
        list(api.watch("ConfigMap", STATE, "1", 5))
    with waiting(api, "1"):
        pass
    assert len(watches(proxy)) == 2


def test_what_a_watch_can_not_is_said(stage: Stage, proxy: FaultProxy) -> None:
    api = proxy.api(stage.api.namespace)
    where = f"ConfigMap {stage.api.namespace}/{STATE}"
    for fault, error in (("403", ForbiddenError), ("dropped", UnavailableError), ("500", UnavailableError)):
        proxy.fault = lambda _, fault=fault: fault
        with pytest.raises(error, match=where):
            list(api.watch("ConfigMap", STATE, "1", 5))


def test_bookmarks_carry_the_version_on(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    events = [[{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "77"}}}], [{"type": "MODIFIED", "object": {}}]]

    def told(kind: str, name: str, version: str, seconds: int) -> Iterator[dict[str, object]]:
        asked.append(version)
        yield from events.pop(0)

    monkeypatch.setattr(stage.api, "watch", told)
    monkeypatch.setattr(watch, "_SHORTEST_WATCH", 0.0)
    Doorbell(stage.api, "ConfigMap", STATE).wait("1", 5)
    assert asked == ["1", "77"]


def test_pauses_grow_up_to_the_longest() -> None:
    pauses = growing_pauses(10.0)
    found = [next(pauses) for _ in range(20)]
    assert 0.05 <= found[0] <= 0.15
    assert all(5 <= pause <= 15 for pause in found[10:])
    assert len(set(found)) == 20
