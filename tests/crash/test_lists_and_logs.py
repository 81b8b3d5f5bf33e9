"""Lists of more objects than one page holds are whole, also when the API server forgets their begin; logs are read once."""

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from components.core.errors import RolloutError
from serving.rollout.cluster import api as api_module
from serving.rollout.cluster.api import ExpiredError
from serving.rollout.cluster.names import NAME
from tests.crash.cluster_site import Controller
from tests.crash.conftest import ApiOf, channel_of
from tests.crash.fault_proxy import Call, Fault, FaultProxy
from tests.crash.stage import Stage, leaping
from tests.crash.test_pod_troubles import waiting
from tests.crash.victims import Order

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
PODS, PAGE = 205, 50


@pytest.fixture(scope="module")
def crowded(settled: Callable[[], Order], api_of: ApiOf) -> Stage:
    """A stage with many pods of release a."""
    order = settled()
    stage = Stage(api_of(order.namespace), channel_of(order))
    spec = {"containers": [{"name": "server", "image": "server:1"}]}
    for number in range(PODS):
        metadata = {"name": f"pod-{number}", "labels": stage.names.selector(stage.revision("a"))}
        stage.api.create("Pod", {"metadata": metadata, "spec": spec})
    return stage


@pytest.fixture
def proxy(crowded: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """Between the crowd and its API server, which gives it in pages."""
    monkeypatch.setattr(api_module, "_pauses", lambda: (0.001 for _ in count()))
    monkeypatch.setattr(api_module, "_PAGE", PAGE)
    with FaultProxy(crowded.api) as running:
        yield running


def pods(stage: Stage, proxy: FaultProxy) -> list[str]:
    """The names of all pods, as a rollout lists them."""
    return [each["metadata"]["name"] for each in proxy.api(stage.api.namespace).list("Pod", f"{NAME}=classifier")]


def at_list(number: int, fault: Fault) -> Callable[[Call], Fault]:
    """That fault at the so-manieth page that is asked for."""
    return lambda call: fault if call.number == number else ""


EVERY = {f"pod-{number}" for number in range(PODS)}


def test_more_pods_than_a_page_holds(crowded: Stage, proxy: FaultProxy) -> None:
    found = pods(crowded, proxy)
    assert len(found) == PODS
    assert set(found) == EVERY
    assert [f"limit={PAGE}" in call.path for call in proxy.calls] == [True] * 5


@pytest.mark.parametrize("page", [2, 3, 5])
def test_a_list_whose_begin_was_forgotten_is_whole(crowded: Stage, proxy: FaultProxy, page: int) -> None:
    proxy.fault = at_list(page, "410")
    found = pods(crowded, proxy)
    assert len(found) == PODS
    assert set(found) == EVERY
    # In one piece: there is no token that could expire.
    assert len(proxy.calls) == page + 1
    assert "limit" not in proxy.calls[-1].path


@pytest.mark.parametrize("fault", ["500", "429", "dropped", "cut"])
def test_a_fault_between_two_pages_repeats_the_page(crowded: Stage, proxy: FaultProxy, fault: Fault) -> None:
    proxy.fault = at_list(3, fault)
    found = pods(crowded, proxy)
    assert len(found) == PODS
    assert set(found) == EVERY
    assert len(proxy.calls) == 6


def test_a_server_that_forgets_everything_is_an_error(crowded: Stage, proxy: FaultProxy) -> None:
    proxy.fault = lambda _: "410"
    with pytest.raises(ExpiredError, match=r"Pod n\d+: the API server forgot what the list began with: .*Run again"):
        pods(crowded, proxy)


@pytest.mark.parametrize("kind", ["ConfigMap", "Deployment", "Event", "HorizontalPodAutoscaler", "Service"])
def test_every_kind_is_listed_in_pages(stage: Stage, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    bodies = {
        "ConfigMap": {"data": {}},
        "Deployment": {"spec": stage.api.get("Deployment", "classifier")["spec"]},
        "Event": {"involvedObject": {"kind": "Pod", "namespace": stage.api.namespace, "name": "x"}, "reason": "r", "message": "m"},
        "HorizontalPodAutoscaler": {
            "spec": {"maxReplicas": 2, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}}
        },
        "Service": {"spec": {"clusterIP": "None", "ports": [{"port": 1}]}},
    }
    for number in range(7):
        stage.api.create(kind, {"metadata": {"name": f"each-{number}", "labels": {"of": "seven"}}, **bodies[kind]})
    monkeypatch.setattr(api_module, "_PAGE", 3)
    before = stage.api.calls["GET"]
    found = [each["metadata"]["name"] for each in stage.api.list(kind, "of=seven")]
    assert sorted(found) == [f"each-{number}" for number in range(7)]
    assert stage.api.calls["GET"] == before + 3


@pytest.mark.parametrize("strategy", ["canary", "blue-green"])
def test_a_rollout_whose_every_second_page_is_forgotten(stage: Stage, monkeypatch: pytest.MonkeyPatch, strategy: str) -> None:
    for release in ("a", "a", "b", "b"):
        stage.make_pod(release, {}, ready=True)
    monkeypatch.setattr(api_module, "_PAGE", 1)
    with FaultProxy(stage.api) as forgetful:
        forgetful.fault = lambda call: "410" if "continue=ey" in call.path else ""
        scene = Stage(forgetful.api(stage.api.namespace), stage.channel).run("b", strategy=strategy)
    assert scene.error is None
    assert {len(candidate) for candidate, _ in scene.measured} == {2}
    stage.has_all("b")


# --- logs -------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def manual(stage: Stage, controller: Controller) -> Stage:
    """A stage on which release b never gets ready, by a clock that runs."""
    controller.left.add(f"{stage.api.namespace}/{stage.deployment('b')}")
    stage.clock = leaping(2)
    return stage


def crashed(restarts: int, *, loops: bool = False) -> dict[str, object]:
    """A container's status after so many restarts."""
    found = waiting("CrashLoopBackOff" if loops else "", restarts=restarts, code=3)
    found["lastState"]["terminated"]["containerID"] = f"containerd://{restarts}"
    return {"containerStatuses": [found]}


def logs(proxy: FaultProxy) -> list[str]:
    """Which logs were asked for: pod, and whether it was the one before."""
    found = [call.path for call in proxy.calls if "/log?" in call.path]
    return [f"{path.split('/pods/')[1].split('/')[0]}{' before' if 'previous=true' in path else ''}" for path in found]


def test_logs_are_read_once_for_each_restart_and_only_those_that_are_told(manual: Stage) -> None:
    for number in range(5):
        manual.make_pod("b", crashed(1), name=f"bad-{number}")
    manual.after(20, lambda: manual.edit("Pod", "bad-4/status", ("status",), {"phase": "Running", **crashed(2, loops=True)}))
    with FaultProxy(manual.api) as proxy:
        proxy.says = lambda call: "no such label: tulip" if "/log?" in call.path else None
        seen = Stage(proxy.api(manual.api.namespace), manual.channel, manual.clock)
        scene = seen.run("b", progress_deadline=600.0)
        polls = sum(1 for call in proxy.calls if call.verb == "GET" and "/pods?" in call.path)
    assert isinstance(scene.error, RolloutError)
    assert "Pod bad-4, container server ended with code 3, 2 restart(s); its log ends with: no such label: tulip; " in str(scene.error)
    assert polls > 20
    assert logs(proxy) == [f"bad-{number} before" for number in (0, 1, 2, 4)]


def test_a_log_that_can_not_be_had_yet_is_asked_for_again(manual: Stage) -> None:
    manual.make_pod("b", crashed(1), name="bad")
    refusals = count(1)
    with FaultProxy(manual.api) as proxy:
        proxy.fault = lambda call: "500" if "/log?" in call.path and next(refusals) <= 4 else ""
        proxy.says = lambda call: ("" if "previous=true" in call.path else "at last") if "/log?" in call.path else None
        scene = Stage(proxy.api(manual.api.namespace), manual.channel, manual.clock).run("b", progress_deadline=40.0)
    assert "Pod bad, container server ended with code 3, 1 restart(s); its log ends with: at last" in str(scene.error)
    # Twice neither of the two could be had; then the one of before was empty.
    assert logs(proxy) == ["bad before", "bad"] * 3
