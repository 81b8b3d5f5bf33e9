"""Whole rounds against real HTTP servers: what a good, a slow, a wrong, a failing and a missing candidate look like."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import UsageError
from serving.rollout.analysis.analyst import Analyst
from serving.rollout.analysis.labelled import LabelledImage
from serving.rollout.analysis.pods import DirectAccess, PodAccess, PodTarget
from serving.rollout.analysis.rules import Measurement, verdict
from serving.rollout.analysis.settings import AnalysisSettings
from serving.server.status import Code
from tests.rollout.fake_pod import CLASSES, MODEL, FakePod, answers_always, golden
from tests.rollout.web import Reply, WebServer, reply, unused_port


@pytest.fixture
def site() -> Iterator["Site"]:
    with Site() as site:
        yield site


class Site(ExitStack):
    """Two pods of a candidate, two of the stable version, and an analyst of them."""

    def __init__(self) -> None:
        super().__init__()
        self.candidate = [self.enter_context(FakePod(f"canary-{n}", "new")) for n in (1, 2)]
        self.stable = [self.enter_context(FakePod(f"stable-{n}", "old")) for n in (1, 2)]

    def analyst(self, settings: dict[str, Any] | None = None, **more: Any) -> Analyst:
        made = Analyst(AnalysisSettings.model_validate(settings or {}), golden(), MODEL, **more)
        return self.enter_context(made)

    def targets(self) -> tuple[list[PodTarget], list[PodTarget]]:
        return [pod.target for pod in self.candidate], [pod.target for pod in self.stable]

    def measured(self, analyst: Analyst) -> dict[str, Measurement]:
        return {each.metric: each for each in analyst.measure(*self.targets())}


def outcomes(measured: dict[str, Measurement]) -> dict[str, str]:
    return {metric: each.outcome for metric, each in measured.items()}


GOOD = dict.fromkeys(["error_rate", "latency_p99_ms", "latency_p99_vs_stable", "golden_agreement"], "successful")


def test_a_good_candidate_needs_no_live_traffic(site: Site) -> None:
    for pod in site.stable:
        # What happened before the rollout is not the rollout's.
        pod.count(Code.INTERNAL, times=500)
    analyst = site.analyst()
    measured = site.measured(analyst)
    assert outcomes(measured) == GOOD
    assert measured["error_rate"].text == "error_rate 0 (must be <= 0); stable 0; 20 requests counted by 2 pods"
    latency = measured["latency_p99_ms"]
    # 10 ms lies in the bucket from 6.43 to 11.57 ms; p99 of 20 answers: 0.99 of the way.
    assert latency.value == pytest.approx(11.517, abs=0.001)
    assert latency.baseline == latency.value
    assert latency.text == "latency_p99_ms 11.52 ms (must be <= 2000 ms); stable 11.52 ms; p50 8.998 ms, 20 answers"
    rounds = [*measured.values(), *site.measured(analyst).values(), *site.measured(analyst).values()]
    assert verdict(rounds, AnalysisSettings()).outcome == "successful"


def fails(pod: FakePod) -> None:
    pod.classify = lambda _: Reply("boom", 500)


def is_wrong(pod: FakePod) -> None:
    pod.classify = answers_always("daisy")


def is_slow(pod: FakePod) -> None:
    pod.seconds = 3.0


def is_slower(pod: FakePod) -> None:
    pod.seconds = 0.2


@pytest.mark.parametrize(
    ("break_pod", "failed"),
    [
        (fails, {"error_rate", "golden_agreement"}),
        (is_wrong, {"golden_agreement"}),
        (is_slow, {"latency_p99_ms", "latency_p99_vs_stable"}),
        (is_slower, {"latency_p99_vs_stable"}),
    ],
)
def test_a_bad_pod_fails_the_candidate_in_one_round(site: Site, break_pod: Callable[[FakePod], None], failed: set[str]) -> None:
    break_pod(site.candidate[1])
    measured = site.measured(site.analyst())
    assert {metric for metric, outcome in outcomes(measured).items() if outcome == "failed"} == failed
    found = verdict(measured.values(), AnalysisSettings())
    assert found.outcome == "failed"
    assert {reason.metric for reason in found.reasons if not reason.passed} == failed


def test_live_errors_fail_the_candidate_and_those_of_stable_do_not(site: Site) -> None:
    analyst = site.analyst()
    site.measured(analyst)
    site.stable[0].count(Code.INTERNAL, times=50)
    assert outcomes(site.measured(analyst)) == GOOD
    site.candidate[0].count(Code.UNAVAILABLE, times=5)
    site.candidate[1].count(Code.INVALID_ARGUMENT, times=5)
    measured = site.measured(analyst)
    assert measured["error_rate"].outcome == "failed"
    assert measured["error_rate"].value == pytest.approx(5 / 30)
    assert "30 requests counted by 2 pods, 5 UNAVAILABLE" in measured["error_rate"].text
    assert outcomes(site.measured(analyst)) == GOOD


def test_live_errors_between_two_rounds_count_without_smoke_traffic(site: Site) -> None:
    analyst = site.analyst({"smoke": {"requests": 0}})
    first = site.measured(analyst)
    assert set(outcomes(first).values()) == {"inconclusive"}
    assert first["error_rate"].text.startswith("error_rate: 0 requests in the window, at least 1 are needed")
    site.candidate[0].count(times=4)
    site.candidate[0].count(Code.INTERNAL)
    assert site.measured(analyst)["error_rate"].value == pytest.approx(0.2)


def test_too_few_requests_are_no_data(site: Site) -> None:
    measured = site.measured(site.analyst({"min_requests": 21}))
    assert outcomes(measured)["error_rate"] == "inconclusive"
    assert "20 requests in the window, at least 21 are needed" in measured["latency_p99_ms"].text


def test_a_candidate_that_dies_over_requests_fails_although_it_counts_none(site: Site) -> None:
    site.candidate[0].classify = lambda _: Reply(cut=True)
    measured = site.measured(site.analyst())
    assert measured["error_rate"].outcome == "failed"
    assert "10 of 20 smoke requests failed, first " in measured["error_rate"].text


def test_a_pod_that_is_gone_is_an_error_and_no_failure(site: Site) -> None:
    gone = PodTarget("canary-3", "127.0.0.1", unused_port(), 0, "new")
    candidate, stable = site.targets()
    measured = {each.metric: each for each in site.analyst().measure([*candidate, gone], stable)}
    assert set(outcomes(measured).values()) == {"error"}
    assert "pod canary-3 at 127.0.0.1" in measured["error_rate"].text
    assert verdict(measured.values(), AnalysisSettings()).outcome == "running"


def test_what_the_other_pods_do_wrong_decides_in_spite_of_a_pod_that_is_gone(site: Site) -> None:
    gone = PodTarget("canary-3", "127.0.0.1", unused_port(), 0, "new")
    fails(site.candidate[0])
    candidate, stable = site.targets()
    measured = {each.metric: each for each in site.analyst().measure([*candidate, gone], stable)}
    assert measured["error_rate"].outcome == "failed"
    assert measured["golden_agreement"].outcome == "failed"


def test_a_stable_pod_that_is_gone_leaves_the_others_to_compare_with(site: Site) -> None:
    gone = PodTarget("stable-3", "127.0.0.1", unused_port(), 0, "old")
    candidate, stable = site.targets()
    assert outcomes({m.metric: m for m in site.analyst().measure(candidate, [*stable, gone])}) == GOOD
    alone = {m.metric: m for m in site.analyst().measure(candidate, [gone])}
    assert alone["latency_p99_vs_stable"].outcome == "error"
    assert outcomes(alone) == GOOD | {"latency_p99_vs_stable": "error"}


def test_a_first_deployment_compares_with_nothing(site: Site) -> None:
    analyst = site.analyst()
    rounds = [each for _ in range(3) for each in analyst.measure(site.targets()[0], [])]
    assert outcomes({m.metric: m for m in rounds}) == GOOD | {"latency_p99_vs_stable": "inconclusive"}
    assert verdict(rounds, AnalysisSettings(), compare=False).outcome == "successful"
    assert verdict(rounds, AnalysisSettings()).outcome == "inconclusive"


def test_no_pod_at_all_is_no_success(site: Site) -> None:
    measured = {each.metric: each for each in site.analyst().measure([], site.targets()[1])}
    assert set(outcomes(measured).values()) == {"inconclusive"}


def test_a_restart_is_told_and_counted_from_zero(site: Site) -> None:
    analyst = site.analyst()
    site.candidate[0].count(times=100)
    site.measured(analyst)
    site.candidate[0].restart()
    measured = site.measured(analyst)
    assert measured["error_rate"].text.endswith("20 requests counted by 2 pods; restarted: canary-1")


def test_pods_come_and_go(site: Site) -> None:
    analyst = site.analyst()
    site.measured(analyst)
    with FakePod("canary-9", "new") as newcomer:
        newcomer.count(Code.INTERNAL, times=9)
        measured = {m.metric: m for m in analyst.measure([site.candidate[0].target, newcomer.target], site.targets()[1])}
        assert outcomes(measured) == GOOD
    # What a pod counted while the analysis did not look at it is not of this window.
    site.candidate[1].count(Code.INTERNAL, times=9)
    assert outcomes(site.measured(analyst)) == GOOD


def test_server_counters_that_cannot_be_had_are_an_error_that_says_what_to_do(site: Site) -> None:
    for pod in site.candidate:
        pod.page = lambda: Reply("", 404)
    measured = site.measured(site.analyst())
    assert outcomes(measured) == dict.fromkeys(GOOD, "error") | {"golden_agreement": "successful"}
    assert "Start TF Serving with --monitoring_config_file" in measured["error_rate"].text


def test_agreement_with_stable_and_accuracy_are_measured_where_they_are_on(site: Site) -> None:
    site.candidate[0].classify = site.candidate[1].classify = answers_always("roses")
    labelled = [LabelledImage(str(n), f"x {CLASSES[n % 3]}".encode(), CLASSES[n % 3]) for n in range(6)]
    settings = {"golden_agreement": {"min": None}, "agreement_with_stable": {"min": 0.3}, "smoke_accuracy": {"min": 0.3, "max_drop": 0.5}}
    measured = site.measured(site.analyst(settings, labelled=labelled))
    assert (measured["agreement_with_stable"].outcome, measured["agreement_with_stable"].value) == ("successful", pytest.approx(1 / 3))
    accuracy = measured["smoke_accuracy"]
    assert (accuracy.outcome, accuracy.value, accuracy.baseline) == ("failed", pytest.approx(1 / 3), 1.0)
    assert "(must be >= 0.5)" in accuracy.text
    assert "golden_agreement" not in measured


@pytest.mark.parametrize(
    ("bounds", "stable", "outcome"),
    [
        ({"max_drop": 0.0}, "all", "successful"),
        ({"max_drop": 0.0}, "none", "inconclusive"),
        ({"min": 0.9, "max_drop": 0.0}, "none", "successful"),
        ({"min": 0.9, "max_drop": 0.0}, "gone", "error"),
        ({"max_drop": 0.0}, "gone", "error"),
    ],
)
def test_a_drop_of_accuracy_needs_a_stable_version(site: Site, bounds: dict[str, float], stable: str, outcome: str) -> None:
    candidate, all_stable = site.targets()
    beside = {"all": all_stable, "none": [], "gone": [PodTarget("stable-3", "127.0.0.1", unused_port(), 0, "old")]}[stable]
    analyst = site.analyst({"smoke_accuracy": bounds}, labelled=[LabelledImage("a", b"x daisy", "daisy")])
    assert outcomes({m.metric: m for m in analyst.measure(candidate, beside)})["smoke_accuracy"] == outcome


def test_labelled_images_come_from_a_folder(site: Site, tmp_path: Path) -> None:
    for label in CLASSES:
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.jpg").write_bytes(f"x {label}".encode())
    measured = site.measured(site.analyst({"smoke_accuracy": {"min": 1.0, "folder": str(tmp_path)}}))
    assert measured["smoke_accuracy"].value == 1.0


def test_an_accuracy_without_images_is_a_mistake() -> None:
    with pytest.raises(UsageError, match=r"analysis\.smoke_accuracy: there is no labelled image"):
        Analyst(AnalysisSettings.model_validate({"smoke_accuracy": {"min": 0.5}}), golden(), MODEL)


def test_providers_outside_are_asked_in_every_round(site: Site) -> None:
    sample = {"status": "success", "data": {"resultType": "scalar", "result": [1, "0.5"]}}
    with WebServer(lambda asked: reply(sample if "query" in asked.path else {"verdict": "failed"})) as server:
        settings = {
            "prometheus": [{"name": "load", "address": server.url, "query": "x", "max": 1}],
            "webhooks": [{"name": "review", "url": server.url}, {"name": "away", "url": f"http://127.0.0.1:{unused_port()}"}],
        }
        measured = site.measured(site.analyst(settings))
    assert outcomes(measured) == GOOD | {"load": "successful", "review": "failed", "away": "error"}
    assert list(measured) == list(AnalysisSettings.model_validate(settings).metrics())


def test_another_access_can_be_plugged_in(site: Site) -> None:
    opened: list[str] = []

    class Proxied(DirectAccess):
        def close(self) -> None:
            opened.remove(f"{id(self)}")
            super().close()

    def connect(target: PodTarget) -> PodAccess:
        access = Proxied(target, MODEL)
        opened.append(f"{id(access)}")
        return access

    analyst = site.analyst(connect=connect)
    site.measured(analyst)
    site.measured(analyst)
    assert len(opened) == 4
    analyst.measure(*(targets[:1] for targets in site.targets()))
    assert len(opened) == 2
    analyst.close()
    assert opened == []


def test_every_measurement_of_a_round_has_its_time(site: Site) -> None:
    moment = datetime(2026, 11, 21, 6, tzinfo=UTC)
    measured = site.measured(site.analyst(now=lambda: moment))
    assert {each.at for each in measured.values()} == {"2026-11-21T06:00:00.000+00:00"}


def test_the_last_round_can_be_looked_at(site: Site) -> None:
    analyst = site.analyst()
    assert analyst.last is None
    site.measured(analyst)
    assert analyst.last is not None
    assert (analyst.last.candidate.window().total(), analyst.last.stable.smoke.sent) == (20, 20)
