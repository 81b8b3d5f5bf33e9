"""The analysis against two real servers with real models: its names, labels and units are those that the server writes."""

from collections.abc import Iterator

import httpx
import pytest

from serving.rollout.analysis.analyst import Analyst
from serving.rollout.analysis.pods import PodTarget
from serving.rollout.analysis.settings import AnalysisSettings
from serving.rollout.analysis.smoke import check_preview
from serving.rollout.traffic import Query
from tests.serving.harness import RunningServer, tiny_config
from tests.serving.rollout_site import golden_of
from tests.serving.saved_model import export_tiny

BIASES = {"new": 0.0, "old": 3.0}
SETTINGS = AnalysisSettings.model_validate({"latency_p99_ms": {"max": 20_000}, "latency_p99_vs_stable": {"ratio": 1000}})


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, PodTarget]]:
    """One server of each revision; the stable model is partial to daisies."""
    root = tmp_path_factory.mktemp("revisions")
    for revision, bias in BIASES.items():
        export_tiny(root / revision / "1", bias)
    with RunningServer(tiny_config(root / "new")) as new, RunningServer(tiny_config(root / "old")) as old:
        ports = {"new": new.ports, "old": old.ports}
        yield {name: PodTarget(name, "127.0.0.1", at.rest_port or 0, at.grpc_port or 0, name) for name, at in ports.items()}


def golden(revision: str) -> list[Query]:
    return [Query(i.file, i.image, i.label, [float(p) for p in i.probabilities], 0.001) for i in golden_of(BIASES[revision])]


def test_a_real_candidate_beside_a_real_stable_version(pods: dict[str, PodTarget]) -> None:
    with Analyst(SETTINGS, golden("new"), "tiny") as analyst:
        analyst.measure([pods["new"]], [pods["old"]])
        for _ in range(3):
            httpx.post(f"{pods['new'].url()}/v1/models/tiny:predict", json={"instances": [{"b64": "bm8gaW1hZ2U="}]})
        measured = {each.metric: each for each in analyst.measure([pods["new"]], [pods["old"]])}
        assert {each.outcome for each in measured.values()} == {"successful"}, [each.text for each in measured.values()]
        assert analyst.last is not None
        window = analyst.last.candidate.window()
    # What is no image is the client's fault.
    assert window.requests == {"OK": 10, "INVALID_ARGUMENT": 3}
    sent = analyst.last.candidate.smoke
    assert 0 < window.latency_ms(0.5) <= sent.latency(1.0) * 1.8, "a server can't take longer than its client waited, up to a bucket"


def test_a_real_preview(pods: dict[str, PodTarget]) -> None:
    (good,) = check_preview([pods["new"]], golden("new"), "tiny")
    assert good.passed, good.text
    (wrong,) = check_preview([pods["old"]], golden("new"), "tiny")
    assert "golden answers met" in wrong.text
    assert not wrong.passed
    (unknown,) = check_preview([pods["new"]], golden("new"), "another")
    assert "answered 404" in unknown.text
