"""The simulation of many rollouts: it counts what it says it counts, and it sees what grows."""

from pathlib import Path

import pytest

from benchmarks.rollout_scale import Course, measure, summary, table
from tests.crash.cluster_site import Controller


def courses(calls: list[int], memory: list[float] | None = None) -> list[Course]:
    memories = memory or [80.0] * len(calls)
    return [Course(1.0, count, 40, memory, 10_000, [2.0]) for count, memory in zip(calls, memories, strict=True)]


def test_what_stays_is_met_and_what_grows_is_not() -> None:
    flat, growing = [200] * 50, [200 + 2 * number for number in range(50)]
    how = {"replicas": 200, "strategy": "canary"}
    assert summary(courses(flat), deployments=5, **how)["met"]
    assert not summary(courses(growing), deployments=5, **how)["met"]
    assert not summary(courses(flat, [80.0 + number for number in range(50)]), deployments=5, **how)["met"]
    assert not summary(courses(flat), deployments=6, **how)["met"]


def test_the_first_rollouts_have_less_to_clean_up_and_do_not_count() -> None:
    result = summary(courses([100] * 4 + [200] * 46), deployments=5, replicas=200, strategy="canary")
    assert result["calls"] == {"first": 100, "median": 200, "last": 200, "growth": 1.0}
    assert "200 pods each" in table(result)
    assert "API calls                      100       200       200     1.00x" in table(result)


@pytest.mark.cluster
@pytest.mark.timeout(120)
def test_a_few_real_rollouts(kubeconfig: Path, controller: Controller) -> None:
    # Here the benchmark's own stand-in makes the pods ready.
    controller.left.add("scale")
    result = measure(kubeconfig, replicas=3, rollouts=5, strategy="blue-green", namespace="scale")
    assert (result["rollouts"], result["replicas"], result["deployments_left"]) == (5, 3, 5)
    assert 10 < result["writes"]["first"] <= result["writes"]["last"] < 60
    assert result["calls"]["median"] > result["writes"]["median"]
    assert result["list_pods_ms"]["median"] > 0
    assert result["peak_memory_mib"] >= result["memory_mib"]["last"] - 1
