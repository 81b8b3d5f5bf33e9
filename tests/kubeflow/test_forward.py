"""A port-forward through the Kubernetes API, with the real client of Kubernetes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from pipelines.submission.kubeflow.cluster import open_cluster
from pipelines.submission.kubeflow.forward import Forward
from tests.kubeflow.conftest import Dual
from tests.kubeflow.fake_kfp import FakeKfp
from tests.kubeflow.fake_kubernetes import FakeKubernetes, api_service, kubernetes, ready_pod
from tests.kubeflow.records import RELEASE

LABELS = {"app": "ml-pipeline"}


@pytest.fixture
def cluster(kfp: FakeKfp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKubernetes]:
    """A cluster in which the installation is the pod ml-pipeline-1."""
    fake = FakeKubernetes({"services": [api_service()], "pods": [ready_pod("ml-pipeline-1", LABELS)]})
    fake.ports["ml-pipeline-1", 8888] = urlsplit(kfp.url).port or 0
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with kubernetes(fake, tmp_path / "kubeconfig"):
        yield fake


def test_a_run_is_submitted_and_watched_through_a_port_forward(cluster: FakeKubernetes, submit: Dual, kfp: FakeKfp) -> None:
    result = submit("--host", "port-forward", "--watch", "--every", "0.02")
    assert (result.exit_code, RELEASE in result.output) == (0, True), result.output
    assert "dual runs watch" in result.output
    assert "--host port-forward" in result.output
    assert "set DUAL_KFP_UI, or port-forward svc/ml-pipeline-ui" in result.output
    assert len(kfp.state.runs) == 1
    del cluster


def test_without_an_address_the_kubeconfig_leads_there(cluster: FakeKubernetes, dual: Dual) -> None:
    assert dual("runs", "list", DUAL_KFP_HOST="").exit_code == 0
    assert any(path.endswith("/services/ml-pipeline") for path in cluster.asked)


def test_a_successor_is_found_when_the_pod_is_gone(cluster: FakeKubernetes, kfp: FakeKfp) -> None:
    forward = Forward(open_cluster(), "kubeflow")
    url = forward.open()
    try:
        assert httpx.get(f"{url}/apis/v2beta1/healthz").status_code == 200
        cluster.ports = {("ml-pipeline-2", 8888): cluster.ports.pop(("ml-pipeline-1", 8888))}
        cluster.objects["pods"] = [ready_pod("ml-pipeline-2", LABELS)]
        assert httpx.get(f"{url}/apis/v2beta1/healthz").status_code == 200
    finally:
        forward.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/apis/v2beta1/healthz")


def test_large_bodies_and_many_connections_arrive_whole(
    cluster: FakeKubernetes, dual: Dual, package: Path, kfp: FakeKfp, tmp_path: Path
) -> None:
    big = package.read_text().replace("A pair of classifiers.", "A pair of classifiers. " * 40_000)
    package.write_text(big)
    words = ("--package", package, "--data", "x", "--store", tmp_path / "store", "--host", "port-forward")
    assert dual("submit", *words).exit_code == 0
    (version,) = kfp.state.versions.values()
    assert len(version["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["description"]) > 800_000
    del cluster


def _cases() -> list[tuple[str, str]]:
    return [
        ("no ready pod is behind the Service ml-pipeline", "nobody"),
        ("refuses the port-forward", "portforward"),
        ('services "ml-pipeline" not found', "no service"),
        ("cannot get", "services"),
    ]


@pytest.mark.parametrize(("said", "trouble"), _cases())
def test_what_stands_in_the_way_is_said(cluster: FakeKubernetes, dual: Dual, said: str, trouble: str) -> None:
    if trouble == "nobody":
        cluster.objects["pods"][0]["status"]["conditions"][0]["status"] = "False"
    elif trouble == "no service":
        cluster.objects["services"] = []
    else:
        cluster.refused = trouble
    result = dual("runs", "list", "--host", "port-forward")
    assert (result.exit_code != 0, said in result.output) == (True, True), result.output
    assert "Traceback" not in result.output


def test_a_pod_that_listens_at_nothing(cluster: FakeKubernetes, dual: Dual) -> None:
    cluster.ports["ml-pipeline-1", 8888] = 1
    result = dual("runs", "list", "--host", "port-forward")
    assert (result.exit_code, bool(re.search("the connection broke|did not answer", result.output))) == (1, True), result.output


def test_an_unknown_context_is_said(cluster: FakeKubernetes, dual: Dual) -> None:
    result = dual("runs", "list", "--host", "port-forward", "--context", "other")
    assert (result.exit_code, "there is no way to a cluster" in result.output) == (2, True), result.output
    del cluster


def test_a_terminated_run_is_recognised_by_its_workflow(cluster: FakeKubernetes, submit: Dual, dual: Dual, kfp: FakeKfp) -> None:
    from tests.kubeflow.plays import Frame, Play

    kfp.state.play = lambda _: Play([Frame("FAILED", {"train_cloud": "FAILED"})])
    run = json.loads(submit("--json").output)["run"]
    node = {"id": "w-1", "name": "w.root.train-cloud.executor", "type": "Pod", "phase": "Failed", "message": "OOMKilled (exit code 137)"}
    workflow = {"metadata": {"name": "w", "labels": {"pipeline/runid": run}}, "spec": {}, "status": {"nodes": {"w-1": node}}}
    cluster.objects["workflows"] = [workflow]
    shown = dual("runs", "show", run)
    assert re.search(r"train_cloud +failed .*OOMKilled \(exit code 137\)", shown.output), shown.output
    workflow["spec"] = {"activeDeadlineSeconds": 0}
    assert f"{run}  dual-deploy" in (said := dual("runs", "show", run).output)
    assert ": terminated (" in said
