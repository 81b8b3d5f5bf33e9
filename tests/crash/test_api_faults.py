"""An API server that refuses, does not answer, or loses its answers: what may pass is tried again, and nothing is done twice."""

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from components.core.errors import ConflictError, RolloutError
from serving.rollout.cluster import api as api_module
from serving.rollout.cluster.api import Api, ClusterError, ForbiddenError, UnavailableError
from serving.rollout.cluster.objects import Live
from tests.crash.fault_proxy import Call, Fault, FaultProxy
from tests.crash.stage import Scene, Stage

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
TRANSIENT: list[Fault] = ["429", "500", "503", "dropped", "lost", "cut", "page"]
STRATEGIES = ["canary", "blue-green"]


@pytest.fixture
def proxy(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """Between the stage and its API server."""
    monkeypatch.setattr(api_module, "_pauses", lambda: (0.001 for _ in count()))
    with FaultProxy(stage.api) as running:
        yield running


def through(stage: Stage, proxy: FaultProxy, *, patience: float = 20.0) -> Stage:
    """The same namespace as seen through the proxy."""
    return Stage(proxy.api(stage.api.namespace, patience=patience), stage.channel)


def each_once(fault: Fault, *, writes: bool = False) -> Callable[[Call], Fault]:
    """Every second request (or write) fails: each call once, its next try not."""
    turns = count()
    return lambda call: fault if (call.is_write() or not writes) and next(turns) % 2 == 0 else ""


def once(fault: Fault, matches: Callable[[Call], bool]) -> Callable[[Call], Fault]:
    """The first request that matches fails."""
    left = [True]

    def decide(call: Call) -> Fault:
        if left[0] and matches(call):
            left[0] = False
            return fault
        return ""

    return decide


def is_on(verb: str, part: str) -> Callable[[Call], bool]:
    """Whether a request has this verb, and this in its path."""
    return lambda call: call.verb == verb and part in call.path


@pytest.mark.parametrize("fault", TRANSIENT)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_call_fails_once(stage: Stage, proxy: FaultProxy, strategy: str, fault: Fault) -> None:
    proxy.fault = each_once(fault)
    assert through(stage, proxy).run("b", strategy=strategy).error is None
    stage.has_all("b")


@pytest.mark.parametrize("fault", ["lost", "dropped"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_write_fails_once_on_the_way_back(stage: Stage, proxy: FaultProxy, strategy: str, fault: Fault) -> None:
    proxy.fault = each_once(fault, writes=True)
    scene = Scene(outcomes=["failed"])
    assert "failed" in str(through(stage, proxy).run("b", scene, strategy=strategy).error)
    stage.has_all("a")


@pytest.mark.parametrize("fault", ["late", "lost"])
@pytest.mark.parametrize(
    "call",
    [
        is_on("PATCH", "/services/classifier"),
        is_on("POST", "/deployments"),
        is_on("PATCH", "/deployments"),
        is_on("PUT", "/configmaps"),
        is_on("GET", "/pods"),
    ],
    ids=["traffic", "make", "scale", "save", "list"],
)
def test_an_answer_after_the_timeout(stage: Stage, proxy: FaultProxy, call: Callable[[Call], bool], fault: Fault) -> None:
    proxy.fault = once(fault, call)
    assert through(stage, proxy).run("b", strategy="canary").error is None
    stage.has_all("b")


@pytest.mark.parametrize("part", ["/services/classifier", "/deployments/", "/configmaps/", "/deployments?"])
@pytest.mark.parametrize("which", [1, 2, 3])
def test_a_write_that_arrives_when_all_is_over_changes_nothing(stage: Stage, proxy: FaultProxy, part: str, which: int) -> None:
    numbers = count(1)

    def is_that(call: Call) -> bool:
        on_the_way = call.is_write() and part in f"{call.path}?"
        return on_the_way and next(numbers) == which

    proxy.fault = once("held", is_that)
    assert through(stage, proxy).run("b", strategy="canary").error is None
    stage.has_all("b")
    proxy.let_through()
    stage.has_all("b")


def test_a_busy_server_is_given_the_time_that_it_asks_for(stage: Stage, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(api_module.time, "sleep", slept.append)
    proxy.fault, proxy.retry_after = once("429", is_on("GET", "/services")), "3"
    api = proxy.api(stage.api.namespace)
    api.get("Service", "classifier")
    proxy.fault, proxy.retry_after = once("503", is_on("GET", "/services")), "3600"
    api.get("Service", "classifier")
    assert slept == [3.0, 5.0]


@pytest.mark.parametrize("fault", ["503", "dropped"])
@pytest.mark.parametrize("phase", ["prepare", "analyze", "promote", "post_analysis", "drain"])
def test_a_server_that_stays_away_stops_the_run_and_not_the_rollout(stage: Stage, proxy: FaultProxy, phase: str, fault: Fault) -> None:
    away = through(stage, proxy, patience=0.2)
    scene = Scene()
    scene.at[phase] = [lambda: setattr(proxy, "fault", lambda _: fault)]
    away.run("b", scene, strategy="canary")
    assert isinstance(scene.error, UnavailableError)
    assert f" {stage.api.namespace}/" in str(scene.error)
    assert "Run again when the API server answers" in str(scene.error)
    assert stage.state().phase == phase
    proxy.fault = lambda _: ""
    again = away.run("b", strategy="canary")
    assert again.error is None
    assert "took over from run r" in again.texts()
    stage.has_all("b")


def test_a_server_that_comes_back_in_time_is_waited_for(stage: Stage, proxy: FaultProxy) -> None:
    scene = Scene()

    def go_away() -> None:
        last = len(proxy.calls) + 40
        proxy.fault = lambda call: "dropped" if call.number <= last else ""

    scene.at["analyze"] = [go_away]
    assert through(stage, proxy).run("b", scene, strategy="canary").error is None
    stage.has_all("b")


@pytest.mark.parametrize(
    ("fault", "error", "text"), [("403", ForbiddenError, "Role classifier-rollout"), ("422", ClusterError, "(422): invalid")]
)
def test_a_write_that_is_refused_takes_the_rollout_back(
    stage: Stage, proxy: FaultProxy, fault: Fault, error: type[ClusterError], text: str
) -> None:
    proxy.fault = once(fault, is_on("POST", "/deployments"))
    scene = through(stage, proxy).run("b")
    assert isinstance(scene.error, RolloutError)
    assert text in str(scene.error)
    assert f"Deployment {stage.api.namespace}/{stage.deployment('b')}" in str(scene.error)
    stage.has_all("a")
    # What is refused on the way back too is raised as it is, and the next run goes on from there.
    scene = Scene()
    scene.at["post_analysis"] = [lambda: setattr(proxy, "fault", lambda call: fault if is_on("PATCH", "/deployments")(call) else "")]
    scene.outcomes = ["failed"]
    assert type(through(stage, proxy).run("b", scene).error) is error
    assert stage.state().phase == "aborting"
    assert stage.live() == Live(stage.revision("a"), shared=False)
    proxy.fault = lambda _: ""
    assert "the analysis after the switch failed" in str(through(stage, proxy).run("b").error)
    stage.has_all("a")


@pytest.mark.parametrize("part", ["/services/", "/configmaps/", "/deployments/"])
def test_rights_that_a_server_has_not_read_again_yet_are_waited_for(stage: Stage, proxy: FaultProxy, part: str) -> None:
    scene = Scene()
    refused = count(1)

    def not_yet(call: Call) -> Fault:
        return "403" if call.verb == "GET" and part in call.path and next(refused) <= 3 else ""

    scene.at["analyze"] = [lambda: setattr(proxy, "fault", not_yet)]
    assert through(stage, proxy).run("b", scene, strategy="canary").error is None
    stage.has_all("b")


@pytest.mark.parametrize("part", ["/services/", "/configmaps/", "/deployments/"])
def test_a_conflict_is_looked_at_again(stage: Stage, proxy: FaultProxy, part: str) -> None:
    proxy.fault = once("409", lambda call: call.is_write() and part in call.path)
    assert through(stage, proxy).run("b", strategy="canary").error is None
    stage.has_all("b")


@pytest.mark.parametrize(("part", "name"), [("/services/", "Service"), ("/configmaps/", "ConfigMap"), ("/deployments/", "Deployment")])
def test_endless_conflicts_end(stage: Stage, proxy: FaultProxy, part: str, name: str) -> None:
    seen = through(stage, proxy)
    machine = seen.machine("b", Scene())
    proxy.fault = lambda call: "409" if call.is_write() and part in call.path else ""
    with pytest.raises(ConflictError) as caught:
        machine.run()
    assert f"{name} {stage.api.namespace}/" in str(caught.value)
    assert "Find out who" in str(caught.value)
    proxy.fault = lambda _: ""
    assert seen.run("b").error is None
    stage.has_all("b")


def test_no_way_to_a_server(stage: Stage) -> None:
    with FaultProxy(stage.api) as closed:
        api = closed.api(stage.api.namespace, patience=0.1)
    with pytest.raises(UnavailableError, match=r"ConfigMap n\d+/classifier-rollout: the API server could not GET it for 0.1 s"):
        api.get("ConfigMap", "classifier-rollout")


def test_calls_are_counted_with_their_tries(stage: Stage, proxy: FaultProxy) -> None:
    api: Api = proxy.api(stage.api.namespace)
    proxy.fault = each_once("500")
    api.get("Service", "classifier")
    assert api.calls["GET"] == len(proxy.calls) == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_fault_at_every_single_call(stage: Stage, proxy: FaultProxy) -> None:
    """Rollouts after each other, one fault in each: at the first call, at the second …, of every kind in turn; the answer lost always."""
    seen = through(stage, proxy)
    kinds: list[Fault] = ["lost", "cut", "lost", "dropped", "lost", "503"]
    assert seen.run("b", strategy="blue-green").error is None
    calls = len(proxy.calls)
    for number in range(1, calls + 1):
        release = "a" if number % 2 else "b"
        at, fault = len(proxy.calls) + number, kinds[number % len(kinds)]
        proxy.fault = lambda call, at=at, fault=fault: fault if call.number == at else ""
        assert seen.run(release, strategy="blue-green").error is None, f"{fault} at call {number}"
        stage.has_all(release)
    assert calls > 50
