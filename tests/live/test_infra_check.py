"""validate_infra's pod on a real cluster: init container, server, probes, limits, deadlines and logs are the kubelet's own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from components.core.candidate import offer_candidate
from components.core.stores import open_store
from components.validate_infra.infra import Side
from components.validate_infra.pod import Check, make_pod
from components.validate_infra.pod_life import state_of
from components.validate_infra.settings import ValidateInfraSettings
from components.validate_infra.verdict import judge_infra
from serving.rollout.cluster.names import Names
from tests.conftest import ROOT
from tests.live.cluster import LiveCluster, LiveSite, live_site
from tests.live.infra_step import check, write_servable
from tests.live.releases import Releases
from tests.live.steps import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]
COMPONENT = ROOT / "manifests" / "components" / "infra-check" / "kustomization.yaml"
SELECTOR = "app.kubernetes.io/component=infra-check"


@pytest.fixture(scope="module")
def place(cluster: LiveCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSite]:
    """A namespace with the applied manifests, the component infra-check among them, and an empty store."""
    root = tmp_path_factory.mktemp("infra")
    write_servable(root)
    (root / "store").mkdir()
    with live_site(cluster, Releases(open_store(str(root / "store")), {}, {}), root / "overlay", f"infra-check-{uuid4().hex[:6]}") as site:
        (patch,) = yaml.safe_load(COMPONENT.read_text())["patches"]
        operations = json.dumps(yaml.safe_load(patch["patch"]))
        cluster.kubectl("-n", site.namespace, "patch", "role", "classifier-rollout", "--type=json", "-p", operations)
        yield site


def folder_of(place: LiveSite) -> Path:
    return Path(place.releases.store.uri).parent


@pytest.fixture(autouse=True)
def identity(place: LiveSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step has the identity classifier-rollout, and that component's rights."""
    monkeypatch.setenv("KUBECONFIG", str(place.identity(tmp_path)))


def ask(place: LiveSite, run_id: str, folder: Path | None = None, **kubernetes: Any) -> Side:
    side, _ = check(folder or folder_of(place), place.releases.store.uri, run_id, place.namespace, **kubernetes)
    wait_for(lambda: place.pods(SELECTOR) == [], "the end of the pod", 60)
    assert list(place.releases.store.list("candidates/")) == []
    return side


def failures(side: Side) -> list[str]:
    settings = ValidateInfraSettings.model_validate({"budgets": {"cloud_size_mb": None}})
    return [text for text in judge_infra(side, Side(failure="left out"), settings).failures() if text != "mobile: left out"]


@contextmanager
def changed(place: LiveSite, **fields: Any) -> Iterator[None]:
    """Other fields of the template's server for a while."""
    (server,) = place.api.get("Deployment", "classifier")["spec"]["template"]["spec"]["containers"]

    def write(values: dict[str, Any]) -> None:
        path = "/spec/template/spec/containers/0/"
        place.api.patch("Deployment", "classifier", [{"op": "replace", "path": path + key, "value": each} for key, each in values.items()])

    write(fields)
    try:
        yield
    finally:
        write({key: server[key] for key in fields})


def test_a_good_model_passes_with_every_figure_measured(place: LiveSite) -> None:
    side = ask(place, "good")
    assert failures(side) == []
    assert set(side.differences) == {"REST", "REST, one batch", "gRPC"}
    assert len(side.malformed) == 23
    assert side.warmup == (4, 4)
    assert 150 < side.measurements["memory_mb"] < 2048
    assert 0 < side.measurements["load_seconds"] < side.measurements["start_seconds"]
    assert "[fetch] " in side.log_tail
    assert "is staged, the sha256 of every file verified" in side.log_tail
    assert "[server] " in side.log_tail


def test_from_outside_it_is_asked_through_the_api_server(place: LiveSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(place.cluster.kubeconfig))
    side = ask(place, "outside", access="proxy")
    assert failures(side) == []
    assert set(side.differences) == {"REST", "REST, one batch"}
    assert {each.protocol for each in side.malformed} == {"REST"}


def test_a_model_that_does_not_load_is_refused_with_the_servers_words(place: LiveSite, tmp_path: Path) -> None:
    write_servable(tmp_path)
    next((tmp_path / "cloud" / "variables").glob("*.data*")).unlink()
    side = ask(place, "broken", tmp_path)
    assert "container server ended with code 1; its log ends with: " in side.failure
    assert "No such file or directory" in side.failure
    assert failures(side) == [f"cloud: {side.failure}"]


def test_an_image_that_cannot_be_pulled_is_refused_by_name(place: LiveSite) -> None:
    with changed(place, image="registry.local:5000/no-such-server:1"):
        side = ask(place, "image")
    assert "container server: ImagePullBackOff: " in side.failure
    assert "registry.local:5000/no-such-server:1" in side.failure


def test_a_server_that_needs_more_memory_than_the_overlay_gives_is_refused(place: LiveSite) -> None:
    small = {"requests": {"cpu": "50m", "memory": "60Mi"}, "limits": {"cpu": "2", "memory": "60Mi"}}
    with changed(place, resources=small):
        side = ask(place, "memory")
    assert "container server ended with code 137 (out of memory)" in side.failure


def test_a_volume_that_is_missing_is_named(place: LiveSite) -> None:
    found = place.api.get("ConfigMap", "classifier-monitoring")
    place.api.delete("ConfigMap", found)
    try:
        side = ask(place, "volume", ready_within=20)
    finally:
        place.api.create("ConfigMap", {"metadata": {"name": "classifier-monitoring"}, "data": found["data"]})
    assert "was not ready within 20 s" in side.failure
    assert 'configmap "classifier-monitoring" not found' in side.failure


def test_kubernetes_ends_a_pod_that_nobody_ends(place: LiveSite) -> None:
    template, names = place.api.get("Deployment", "classifier"), Names(namespace=place.namespace)
    candidate = offer_candidate(place.releases.store, folder_of(place) / "cloud", name="classifier", run_id="after")
    name = place.api.create("Pod", make_pod(template, names, Check(candidate, "nobody", seconds=4)))["metadata"]["name"]
    wait_for(lambda: "DeadlineExceeded" in state_of(place.api, name), "the pod's end", 60)
    assert failures(ask(place, "after")) == [], "pod and candidate are removed by the next check"


def test_what_a_killed_step_leaves_the_next_one_removes(place: LiveSite) -> None:
    words = [str(folder_of(place)), place.releases.store.uri, "killed", place.namespace]
    with subprocess.Popen([sys.executable, "-m", "tests.live.infra_step", *words], cwd=ROOT, env=os.environ) as step:
        wait_for(lambda: len(place.pods(SELECTOR)) == 1, "the pod")
        step.send_signal(signal.SIGKILL)
    left = place.pods(SELECTOR)[0]["metadata"]["name"]
    assert list(place.releases.store.list("candidates/"))
    side = ask(place, "killed")
    assert failures(side) == []
    assert left not in [pod["metadata"]["name"] for pod in place.pods("")]
