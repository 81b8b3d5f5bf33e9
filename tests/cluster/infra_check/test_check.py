"""validate_infra's Kubernetes form on a real API server: a real server as the pod, asked, measured and judged; and who may."""

import json
import socket
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from components.core.record import open_step
from components.validate_infra.golden import CloudAnswer
from components.validate_infra.infra import read_infra
from components.validate_infra.validate import Artifacts, validate_models
from serving.rollout.cluster.api import ForbiddenError
from tests.cluster.infra_check.place import Place, apply, as_rollout, failures

pytestmark = pytest.mark.cluster


def test_a_good_model_is_loaded_warmed_asked_and_measured(place: Place, artifacts: Artifacts, tmp_path: Path) -> None:
    settings = json.dumps({"name": "classifier", "validate_infra": place.settings()})
    with place.kubelet() as kubelet, open_step("validate_infra", store=str(tmp_path / "store"), run_id="run") as record:
        validate_models(record, artifacts, settings=settings, output=tmp_path / "servable")
    infra = read_infra(tmp_path / "servable")
    assert infra.verdict.blessed, infra.verdict.failures()
    image = place.template["spec"]["template"]["spec"]["containers"][0]["image"]
    assert infra.server == f"{image} in a pod of the namespace {place.names.namespace} (sha256:abc)"
    assert set(infra.cloud.differences) == {"REST", "REST, one batch", "gRPC"}
    assert len(infra.cloud.malformed) == 23
    assert infra.cloud.warmup == (7, 7)
    assert infra.cloud.measurements["memory_mb"] == 200
    assert 0 < infra.cloud.measurements["load_seconds"] < infra.cloud.measurements["start_seconds"]
    assert "[fetch] candidate" in infra.cloud.log_tail
    assert "[server] Successfully loaded servable version" in infra.cloud.log_tail
    assert place.pods() == place.candidates() == []
    assert kubelet.deleted == list(kubelet.pods)
    assert infra.verdict == record.record.verdict


def test_through_the_api_server_grpc_is_left_out_and_said(place: Place) -> None:
    store = str(place.root / "store")
    with place.kubelet(address=own_address()) as kubelet:
        side, record = place.check(access="proxy", store=store)
    (pod,) = kubelet.pods.values()
    assert {"name": "DUAL_STORE", "value": store} in pod["spec"]["initContainers"][0]["env"]
    assert side.failure == ""
    assert set(side.differences) == {"REST", "REST, one batch"}
    assert {each.protocol for each in side.malformed} == {"REST"}
    assert [each for each in side.malformed if not each.clean] == []
    assert side.alive
    assert record.record.warnings == ["gRPC was left out: the API server, through which the pod is asked, passes only HTTP on"]
    assert failures(side) == []


def own_address() -> str:
    """An address of this machine that is not the loopback's, to which an API server passes nothing on."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        probe.connect(("192.0.2.1", 9))
        return probe.getsockname()[0]


def test_wrong_answers_refuse(place: Place) -> None:
    golden = place.servable.golden.model_copy(deep=True)
    for each in golden.images:
        each.cloud = CloudAnswer(label="tulips", probabilities=[0.1, 0.1, 0.8])
    with place.kubelet():
        side, _ = place.check(replace(place.servable, golden=golden))
    assert [text.split(" golden")[0] for text in failures(side)[:3]] == ["cloud: 0 of 6"] * 3
    assert "after them the golden answers were wrong" in failures(side)[3]


def test_budgets_refuse_and_what_was_not_measured_fails(place: Place) -> None:
    with place.kubelet() as kubelet:
        side, _ = place.check()
        kubelet.peak = "python: No module named serving.peak\n"
        unmeasured, record = place.check()
    assert failures(side, cloud_memory_mb=199) == ["cloud_memory_mb 200 MB (must be <= 199 MB)"]
    assert failures(side, cloud_load_seconds=1e-6, cloud_p99_ms=1e-6)[0].startswith("cloud_load_seconds")
    assert failures(unmeasured, cloud_memory_mb=4096)[0].startswith("cloud_memory_mb nan MB")
    assert failures(unmeasured, cloud_memory_mb=None) == []
    assert "the server's memory could not be measured: the container peak" in record.record.warnings[0]


def test_the_components_role_is_enough(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    as_rollout(place, monkeypatch)
    with place.kubelet():
        side, record = place.check()
    assert failures(side) == []
    assert record.record.warnings == []
    assert place.pods() == []


def test_without_the_component_it_says_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(place.cluster, place.names.namespace, "canary-gcs-hpa")
    as_rollout(place, monkeypatch)
    with pytest.raises(ForbiddenError, match=r"not allowed to POST it: pods is forbidden.*manifests/components/infra-check"):
        place.check()
    assert place.candidates() == []
