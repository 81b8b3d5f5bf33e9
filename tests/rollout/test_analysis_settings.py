"""Settings of the analysis: every mistake is told before a rollout begins."""

import json
from typing import Any

import pytest

from components.core.errors import UsageError
from components.core.settings import section
from serving.rollout.analysis.settings import AnalysisSettings, SmokeSettings

PROMETHEUS = {"name": "saturation", "address": "http://prometheus:9090", "query": "sum(x)", "max": 1}
WEBHOOK = {"name": "review", "url": "https://review.example/verdict"}


def parsed(**settings: Any) -> AnalysisSettings:
    return section(json.dumps({"analysis": settings}), "analysis", AnalysisSettings)


def test_defaults_are_argos_and_the_local_rollouts() -> None:
    settings = parsed()
    assert list(settings.metrics()) == ["error_rate", "latency_p99_ms", "latency_p99_vs_stable", "golden_agreement"]
    limits = settings.limits("error_rate")
    assert (limits.count, limits.failure_limit, limits.inconclusive_limit, limits.consecutive_error_limit) == (3, 0, 0, 4)
    assert settings.error_rate.max == 0
    assert settings.golden_agreement.min == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dry_run": ["error_rat"]}, "dry_run names 'error_rat', and there is no such metric: error_rate, "),
        ({"prometheus": [PROMETHEUS, PROMETHEUS]}, "the metric name 'saturation' is there twice"),
        ({"webhooks": [WEBHOOK | {"name": "error_rate"}]}, "the metric name 'error_rate' is there twice"),
        ({"prometheus": [PROMETHEUS | {"max": None}]}, "saturation has no bound"),
        ({"prometheus": [PROMETHEUS | {"min": 2}]}, "min 2 is above max 1"),
        ({"prometheus": [PROMETHEUS | {"address": "prometheus:9090"}]}, "is no http:// or https:// URL"),
        ({"prometheus": [PROMETHEUS | {"address": "http://me:secret@prometheus"}]}, "must not hold a user or a password"),
        ({"webhooks": [WEBHOOK | {"url": "ftp://x/y"}]}, "is no http:// or https:// URL"),
        ({"failure_limit": 3}, "error_rate: failure_limit 3 is not below count 3: it could never be exceeded"),
        ({"error_rate": {"inconclusive_limit": 3}}, "error_rate: inconclusive_limit 3 is not below count 3"),
        ({"dry_run": ["error_rate", "latency_p99_ms", "latency_p99_vs_stable", "golden_agreement"]}, "no metric decides"),
        ({"interval": 0}, "greater than 0"),
        ({"errorrate": {}}, "Extra inputs are not permitted"),
    ],
)
def test_a_mistake_is_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        parsed(**settings)
    assert message in str(raised.value)
    assert "settings key analysis" in str(raised.value)


def test_any_limit_goes_with_an_open_count() -> None:
    assert parsed(count=0, failure_limit=7).limits("error_rate").failure_limit == 7


def test_what_needs_a_stable_version() -> None:
    assert parsed().comparisons() == {"latency_p99_vs_stable", "agreement_with_stable", "smoke_accuracy"}
    assert "smoke_accuracy" not in parsed(smoke_accuracy={"min": 0.8}).comparisons()


def test_smoke_requests_are_bounded_and_reach_every_pod() -> None:
    smoke = SmokeSettings(requests=10, most=400)
    assert [smoke.per_pod(pods) for pods in (0, 1, 40, 80, 200, 1000)] == [10, 10, 10, 5, 2, 1]
    assert SmokeSettings(requests=0).per_pod(3) == 0
