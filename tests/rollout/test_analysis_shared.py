"""Two versions in the same pods: what can be known of each, what can't, and what a pod's own server says that it holds."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from serving.rollout.analysis.analyst import Analyst
from serving.rollout.analysis.held import Held, ask_held
from serving.rollout.analysis.pods import DirectAccess, PodTarget
from serving.rollout.analysis.prometheus import measure_prometheus
from serving.rollout.analysis.rules import Measurement
from serving.rollout.analysis.scrape import PATH
from serving.rollout.analysis.settings import AnalysisSettings, PrometheusMetric
from serving.rollout.analysis.subject import subject_of
from serving.server.status import Code
from tests.rollout.fake_pod import MODEL, FakePod, answers_always, golden, right_answer
from tests.rollout.fake_server import FakeServer
from tests.rollout.web import Asked, Reply, WebServer, reply, unused_port

AT = "2026-11-21T06:00:00.000+00:00"
A, B = 0xA, 0xB


class TwoVersions(FakePod):
    """A pod that answers for the versions A and B, and counts all of it together."""

    def __init__(self) -> None:
        super().__init__("pod-1", "labels-0123ab")
        self.answers: dict[int, Callable[[bytes], dict[str, Any] | Reply]] = {A: right_answer, B: right_answer}

    def _answered(self, asked: Asked) -> Reply:
        for version, classify in self.answers.items():
            if asked.path == f"/v1/models/{MODEL}/versions/{version}:predict":
                (instance,) = json.loads(asked.body)["instances"]
                found = classify(base64.b64decode(instance["b64"]))
                self.count(Code.INTERNAL if isinstance(found, Reply) else Code.OK, entrypoint="REST")
                return found if isinstance(found, Reply) else reply({"predictions": [found]})
        return super()._answered(asked)

    def version(self, number: int) -> PodTarget:
        return replace(self.target, path=f"versions/{number}", shared=True)


def measured(pod: TwoVersions, **settings: Any) -> dict[str, Measurement]:
    with Analyst(AnalysisSettings.model_validate(settings), golden(), MODEL) as analyst:
        return {each.metric: each for each in analyst.measure([pod.version(B)], [pod.version(A)])}


def test_each_version_is_asked_by_its_number_and_judged_by_what_it_answered() -> None:
    with TwoVersions() as pod:
        found = measured(pod, smoke={"requests": 6}, agreement_with_stable={"min": 1.0})
    assert {each.outcome for each in found.values()} == {"successful"}
    assert "6 requests sent to this version" in found["error_rate"].text
    assert "6 answers" in found["latency_p99_ms"].text
    assert found["latency_p99_vs_stable"].baseline is not None
    assert PATH not in {asked.path for asked in pod.asked}, "counters of both versions say nothing of one"


@pytest.mark.parametrize(("wrong", "fails"), [(B, {"error_rate", "golden_agreement"}), (A, set())])
def test_failures_of_a_version_are_its_own(wrong: int, fails: set[str]) -> None:
    with TwoVersions() as pod:
        pod.answers[wrong] = lambda _: reply({"error": "no"}, 500)
        found = measured(pod, latency_p99_ms={"max": None}, latency_p99_vs_stable={"ratio": None})
    assert {metric for metric, each in found.items() if each.outcome == "failed"} == fails


def test_a_candidate_that_answers_wrong_beside_a_right_one_is_found() -> None:
    with TwoVersions() as pod:
        pod.answers[B] = answers_always("roses")
        found = measured(pod)
    assert (found["golden_agreement"].outcome, found["error_rate"].outcome) == ("failed", "successful")
    assert "(versions/11)" in found["golden_agreement"].text, "the pod and the version are named"


def test_without_requests_of_its_own_a_version_is_not_judged_by_the_others_traffic() -> None:
    with TwoVersions() as pod:
        pod.count(times=500)
        found = measured(pod, smoke={"requests": 0})
    assert {metric: each.outcome for metric, each in found.items()} == dict.fromkeys(found, "inconclusive")


def test_after_the_switch_the_servers_counters_count_again() -> None:
    with FakePod() as pod, Analyst(AnalysisSettings(), golden(), MODEL) as analyst:
        analyst.measure([pod.target], [])
        pod.count(Code.INTERNAL, times=5)
        found = {each.metric: each for each in analyst.measure([pod.target], [])}
    assert found["error_rate"].outcome == "failed"
    assert "5 INTERNAL" in found["error_rate"].text


@pytest.mark.parametrize(
    ("query", "asked"),
    [("sum(x)", True), ("$x$", True), ('x{r="$revision"}', False), ('x{pod=~"$pods"}', False), ("x{r='${pods}'}", False)],
)
def test_a_query_about_pods_is_not_asked_while_they_serve_both(query: str, asked: bool) -> None:
    with WebServer(lambda _: reply({"status": "success", "data": {"resultType": "scalar", "result": [1, "0.1"]}})) as server:
        metric = PrometheusMetric(name="m", address=server.url, query=query, max=1.0)
        with TwoVersions() as pod:
            found = measure_prometheus(metric, subject_of(MODEL, [pod.version(B)]), None, at=AT)
            alone = measure_prometheus(metric, subject_of(MODEL, [pod.target]), None, at=AT)
        assert found.outcome == ("successful" if asked else "inconclusive")
        assert len(server.asked) == (2 if asked else 1)
    assert alone.outcome == "successful"


# --- what a server says that it holds ---------------------------------------------------------------------------------------------


def held(server: FakeServer | Callable[[Asked], Reply]) -> Held:
    def page(asked: Asked) -> Reply:
        if not isinstance(server, FakeServer):
            return server(asked)
        status, body = server.page(asked.path.partition("/labels/")[2])
        return Reply(body, status)

    with WebServer(page) as web:
        access = DirectAccess(PodTarget("pod-1", "127.0.0.1", web.port, 0, "labels-0123ab"), MODEL)
        found = ask_held(access, MODEL, ("stable", "canary"))
        access.close()
    return found


def test_versions_states_and_labels_are_what_the_server_says() -> None:
    server = FakeServer(broken={B})
    assert held(server) == Held()
    server.reload([A, B], {})
    for _ in range(3):
        server.step()
    server.reload([A, B], {"stable": A})
    assert held(server) == Held({A: "AVAILABLE", B: "END"}, {B: "no graph in it"}, {"stable": A})


@pytest.mark.parametrize(
    ("answer", "problem"),
    [(Reply("busy", 503), "answered 503"), (Reply("<html>"), "answered no status"), (Reply(cut=True), "no usable answer")],
)
def test_a_server_that_says_nothing_usable_is_a_problem_and_no_error(answer: Reply, problem: str) -> None:
    assert problem in held(lambda _: answer).problem


def test_a_pod_that_is_gone_is_a_problem_too() -> None:
    access = DirectAccess(PodTarget("pod-1", "127.0.0.1", unused_port(), 0, "labels-0123ab"), MODEL)
    assert "can't be reached" in ask_held(access, MODEL, ("stable",)).problem
