"""Prometheus and web services: good answers, bad answers, and secrets that must never be printed."""

import logging
import time
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from serving.rollout.analysis.answers import fetch
from serving.rollout.analysis.prometheus import filled, measure_prometheus
from serving.rollout.analysis.rules import Measurement
from serving.rollout.analysis.settings import PrometheusMetric, WebhookMetric
from serving.rollout.analysis.subject import Subject
from serving.rollout.analysis.webhook import measure_webhook
from tests.rollout.web import Asked, Reply, WebServer, reply, unused_port

AT = "2026-11-21T06:00:00.000+00:00"
CANDIDATE = Subject("flowers", "new-1", ["flowers-new-1-a", "flowers-new-1-b"])
STABLE = Subject("flowers", "old-2", ["flowers-old-2-a"])
SECRET = "s3cr3t-t0ken"


def vector(*values: str) -> Reply:
    result = [{"metric": {"pod": str(number)}, "value": [1700000000.1, value]} for number, value in enumerate(values)]
    return reply({"status": "success", "data": {"resultType": "vector", "result": result}})


def scalar(value: str) -> Reply:
    return reply({"status": "success", "data": {"resultType": "scalar", "result": [1700000000, value]}})


def prometheus(address: str, **more: Any) -> PrometheusMetric:
    return PrometheusMetric.model_validate({"name": "saturation", "address": address, "query": "sum(x)", "max": 0.5} | more)


def webhook(url: str, **more: Any) -> WebhookMetric:
    return WebhookMetric.model_validate({"name": "review", "url": url} | more)


def asked_prometheus(answer: Reply, **more: Any) -> Measurement:
    with WebServer(lambda _: answer) as server:
        made = measure_prometheus(prometheus(server.url, **more), CANDIDATE, None, at=AT)
        assert made.outcome != "error" or server.url in made.text
        return made


@pytest.mark.parametrize(
    ("answer", "outcome", "value"),
    [
        (vector("0.25"), "successful", 0.25),
        (vector("0.75"), "failed", 0.75),
        (scalar("0.5"), "successful", 0.5),
        (vector(), "inconclusive", None),
        (vector("NaN"), "inconclusive", None),
        (scalar("+Inf"), "failed", None),
        (scalar("-Inf"), "inconclusive", None),
    ],
)
def test_a_number_of_prometheus_is_judged(answer: Reply, outcome: str, value: float | None) -> None:
    made = asked_prometheus(answer)
    assert (made.outcome, made.value, made.metric, made.at) == (outcome, value, "saturation", AT)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (vector("1", "2"), "query sum(x): gave 2 series, and one number is needed"),
        (reply({"status": "success", "data": {"resultType": "matrix", "result": []}}), "gave neither a vector nor a scalar"),
        (reply({"status": "success", "data": {"resultType": "string", "result": [1, "x"]}}), "gave neither a vector nor a scalar"),
        (reply({"status": "error", "error": "parse error at char 3"}, 400), 'answered 400: {"status": "error", "error": "parse error'),
        (reply({"status": "error", "error": "late"}), "gave neither"),
        (vector("many"), "gave neither"),
        (Reply("<html>login</html>"), "gave neither a vector nor a scalar: <html>login"),
        (Reply("", 302, {"Location": "http://elsewhere/"}), "answered 302"),
        (Reply(cut=True), "gave no usable answer (RemoteProtocolError)"),
    ],
)
def test_a_bad_answer_of_prometheus_is_an_error_that_names_address_and_query(answer: Reply, text: str) -> None:
    made = asked_prometheus(answer)
    assert made.outcome == "error"
    assert text in made.text
    assert "query sum(x)" in made.text


def test_a_prometheus_that_is_not_there_is_an_error() -> None:
    address = f"http://127.0.0.1:{unused_port()}"
    made = measure_prometheus(prometheus(address), CANDIDATE, None, at=AT)
    assert made.outcome == "error"
    assert f"{address}, query sum(x): can't be reached" in made.text


def test_a_service_that_drips_ends_at_its_timeout() -> None:
    # Every byte comes in time, the whole answer would take 2 s.
    with WebServer(lambda _: Reply("x" * 100, drip=0.02)) as server:
        began = time.monotonic()
        made = measure_prometheus(prometheus(server.url, timeout=0.1), CANDIDATE, None, at=AT)
        assert time.monotonic() - began < 1
    assert made.outcome == "error"
    assert "gave no whole answer within 0.1 s" in made.text


def test_a_service_that_floods_is_left() -> None:
    with WebServer(lambda _: Reply("x" * 5000)) as server, httpx.Client() as client:
        assert len(fetch(client, client.build_request("GET", server.url), seconds=5, most=5000).text) == 5000
        with pytest.raises(httpx.DecodingError, match="more than 4999 bytes"):
            fetch(client, client.build_request("GET", server.url), seconds=5, most=4999)


def test_revision_pods_and_model_are_filled_in_for_both_versions() -> None:
    queries: list[str] = []

    def answer(asked: Asked) -> Reply:
        queries.append(parse_qs(asked.body.decode())["query"][0])
        return vector("0.4" if "new" in queries[-1] else "0.1")

    with WebServer(answer) as server:
        query = 'max(load{revision="$revision",pod=~"$pods",other=~"a$"})'
        made = measure_prometheus(prometheus(server.url, query=query), CANDIDATE, STABLE, at=AT)
    assert queries == [
        'max(load{revision="new-1",pod=~"flowers-new-1-a|flowers-new-1-b",other=~"a$"})',
        'max(load{revision="old-2",pod=~"flowers-old-2-a",other=~"a$"})',
    ]
    assert (made.value, made.baseline) == (0.4, 0.1)
    assert made.text == "saturation 0.4 (must be <= 0.5); stable 0.1"


def test_a_query_without_placeholders_is_asked_once() -> None:
    with WebServer(lambda _: vector("0.1")) as server:
        made = measure_prometheus(prometheus(server.url), CANDIDATE, STABLE, at=AT)
        assert [asked.path for asked in server.asked] == ["/api/v1/query"]
    assert made.baseline is None


def test_names_are_matched_literally() -> None:
    assert filled('{pod=~"$pods"}', Subject("m", "r", ["a.b"])) == '{pod=~"a\\\\.b"}'
    assert filled('{pod=~"$pods"}', Subject("m", "r", [])) == '{pod=~"^$"}'


def test_a_server_that_knows_only_get_is_asked_so() -> None:
    with WebServer(lambda asked: Reply("", 405) if asked.method == "POST" else vector("0.1")) as server:
        assert measure_prometheus(prometheus(server.url + "/"), CANDIDATE, None, at=AT).outcome == "successful"
        assert [asked.path for asked in server.asked] == ["/api/v1/query", "/api/v1/query?query=sum%28x%29"]


@pytest.mark.parametrize("value", [f"Bearer {SECRET}", f"Bearer {SECRET}\n", SECRET])
def test_a_secret_reaches_the_service_and_no_text(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, value: str) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("PROMETHEUS_AUTH", value)
    headers = {"Authorization": "PROMETHEUS_AUTH"}
    # A service that echoes what it refuses.
    with WebServer(lambda asked: Reply(f"bad header {asked.headers}", 401)) as server:
        texts = [
            measure_prometheus(prometheus(server.url, headers=headers), CANDIDATE, None, at=AT).text,
            measure_webhook(webhook(server.url, headers=headers), CANDIDATE, None, at=AT).text,
        ]
        assert [asked.headers["Authorization"] for asked in server.asked] == [value.strip()] * 2
    assert "answered 401: bad header" in texts[0]
    assert SECRET not in "".join(texts) + caplog.text


@pytest.mark.parametrize("value", [f"{SECRET}\nX-Injected: 1", f"{SECRET}ü", f"\x00{SECRET}"])
def test_a_secret_that_no_header_can_hold_is_not_printed_either(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    if "\x00" in value:
        # No environment can hold it; what httpx says about it must not be repeated all the same.
        monkeypatch.setattr("os.environ", {"AUTH": value})
    else:
        monkeypatch.setenv("AUTH", value)
    with WebServer(lambda _: vector("0.1")) as server:
        made = measure_prometheus(prometheus(server.url, headers={"Authorization": "AUTH"}), CANDIDATE, None, at=AT)
        called = measure_webhook(webhook(server.url, headers={"Authorization": "AUTH"}), CANDIDATE, None, at=AT)
    assert (made.outcome, called.outcome) == ("error", "error")
    assert SECRET not in made.text + called.text


def test_a_missing_secret_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTH", raising=False)
    made = measure_prometheus(prometheus("http://127.0.0.1:1", headers={"Authorization": "AUTH"}), CANDIDATE, None, at=AT)
    assert (made.outcome, "environment variable AUTH is not set" in made.text) == ("error", True)


def asked_webhook(answer: Reply, **more: Any) -> Measurement:
    with WebServer(lambda _: answer) as server:
        return measure_webhook(webhook(f"{server.url}/check?token={SECRET}", **more), CANDIDATE, STABLE, at=AT)


@pytest.mark.parametrize(
    ("answer", "more", "outcome", "value"),
    [
        (reply({"value": 0.93}), {"min": 0.9}, "successful", 0.93),
        (reply({"value": 0.89}), {"min": 0.9}, "failed", 0.89),
        (reply({"value": 7}), {"min": 1, "max": 6}, "failed", 7),
        (reply({"value": None, "text": "too early"}), {"min": 0.9}, "inconclusive", None),
        (Reply('{"value": NaN}'), {"min": 0.9}, "inconclusive", None),
        (reply({"verdict": "successful"}), {}, "successful", None),
        (reply({"verdict": "failed", "text": "a person said no"}), {}, "failed", None),
        (reply({"verdict": "inconclusive"}), {}, "inconclusive", None),
        (reply({"verdict": "error"}), {}, "error", None),
        (reply({"value": "0.95"}), {"min": 0.9}, "error", None),
        (reply({"value": True}), {"min": 0.9}, "error", None),
        (reply({"verdict": "successful"}), {"min": 0.9}, "error", None),
        (reply({"value": 0.95}), {}, "error", None),
        (reply({"verdict": "great"}), {}, "error", None),
        (reply({"verdict": "successful"}, 500), {}, "error", None),
        (Reply("ok"), {}, "error", None),
    ],
)
def test_a_web_service_gives_a_number_or_a_verdict(answer: Reply, more: dict[str, Any], outcome: str, value: float | None) -> None:
    made = asked_webhook(answer, **more)
    assert (made.outcome, made.value) == (outcome, value)
    assert made.outcome != "error" or "/check" in made.text
    assert SECRET not in made.text


def test_what_a_web_service_says_is_quoted() -> None:
    assert "says failed: a person said no" in asked_webhook(reply({"verdict": "failed", "text": "a person said no"})).text
    made = asked_webhook(reply({"value": 0.5, "baseline": 0.75, "text": "of 40 votes"}), min=0.9)
    assert made.text == "review 0.5 (must be >= 0.9); stable 0.75; of 40 votes"
    assert made.baseline == 0.75
    assert asked_webhook(reply({"value": None, "text": "too early"}), min=0.9).text == "review: too early"


def test_a_web_service_is_told_what_it_is_about() -> None:
    with WebServer(lambda _: reply({"verdict": "successful"})) as server:
        measure_webhook(webhook(server.url), CANDIDATE, STABLE, at=AT)
        measure_webhook(webhook(server.url), CANDIDATE, None, at=AT)
        first, second = [asked.json() for asked in server.asked]
    assert first == {
        "metric": "review",
        "model": "flowers",
        "candidate": "new-1",
        "candidate_pods": ["flowers-new-1-a", "flowers-new-1-b"],
        "stable": "old-2",
        "stable_pods": ["flowers-old-2-a"],
    }
    assert (second["stable"], second["stable_pods"]) == (None, [])


def test_without_a_pod_of_the_candidate_there_is_no_data() -> None:
    assert measure_prometheus(prometheus("http://127.0.0.1:1"), None, STABLE, at=AT).outcome == "inconclusive"
    assert measure_webhook(webhook("http://127.0.0.1:1"), None, STABLE, at=AT).outcome == "inconclusive"
