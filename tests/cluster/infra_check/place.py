"""A namespace of a real API server with the applied template, and everything that a check of a tiny model there needs."""

import copy
import json
import re
import socket
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.core.record import StepRecord, open_step
from components.validate_infra import cluster_check
from components.validate_infra.asking import Servable
from components.validate_infra.cluster_check import check_on_cluster
from components.validate_infra.infra import Side
from components.validate_infra.pod import Check, make_pod
from components.validate_infra.settings import ValidateInfraSettings
from components.validate_infra.verdict import judge_infra
from serving.rollout.cluster.api import Api, connect
from serving.rollout.cluster.names import Names
from tests.cluster.conftest import MANIFESTS, Cluster, Json, make_namespace
from tests.cluster.infra_check.kubelet import Behave, Kubelet

DIGEST = "0123456789abcdef" * 4
APPLIED = ("Deployment", "ServiceAccount", "Role", "RoleBinding", "Service")
_BUILT: dict[str, list[Json]] = {}


@dataclass(frozen=True)
class Place:
    """A namespace with the applied template, and everything that a check of a tiny model there needs."""

    cluster: Cluster
    api: Api
    names: Names
    root: Path
    servable: Servable

    @property
    def template(self) -> Json:
        return self.api.get("Deployment", "classifier")

    def kubelet(self, behave: Behave = lambda _: None, **options: Any) -> Kubelet:
        pki = Path(self.cluster.environment["KUBECONFIG"]).parent / "pki"
        return Kubelet(self.api, pki, self.root / "node", store=str(self.root / "store"), behave=behave, **options)

    def settings(self, **kubernetes: Any) -> dict[str, Any]:
        quick = {"poll_seconds": 0.05, "ready_within": 60, "asked_within": 60, "namespace": self.names.namespace, "patience": 10}
        return {"target": "kubernetes", "requests": 5, "max_request_mb": 1, "kubernetes": quick | kubernetes}

    def check(self, servable: Servable | None = None, **kubernetes: Any) -> tuple[Side, StepRecord]:
        settings = ValidateInfraSettings.model_validate(self.settings(**kubernetes))
        with open_step("validate_infra", store=str(self.root / "store"), run_id="run") as record:
            return check_on_cluster(record, servable or self.servable, settings)[0], record

    def pods(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in self.api.list("Pod", "")]

    def candidates(self) -> list[Path]:
        return [path for path in (self.root / "store" / "candidates").rglob("*") if path.is_file()]

    def make(self, run_id: str, digest: str = DIGEST, *, seconds: float = 900, owner: Json | None = None) -> str:
        """A pod of a check, of which no step knows."""
        body = make_pod(self.template, self.names, Check(digest, run_id, seconds, owner=owner))
        return self.api.create("Pod", body)["metadata"]["name"]


def make_place(cluster: Cluster, servable: Servable, root: Path, monkeypatch: pytest.MonkeyPatch, title: str) -> Place:
    namespace = (
        f"check-{title.removeprefix('test_').replace('_', '-').partition('[')[0]}"[:55].strip("-") + f"-{time.monotonic_ns() % 10**6}"
    )
    make_namespace(cluster, namespace)
    apply(cluster, namespace, "canary-pvc-pipeline-runner-infra-check")
    monkeypatch.setenv("KUBECONFIG", cluster.environment["KUBECONFIG"])
    api = connect(namespace, kubeconfig=Path(cluster.environment["KUBECONFIG"]), patience=10)
    return Place(cluster, api, Names(namespace=namespace), root, servable)


def apply(cluster: Cluster, namespace: str, combination: str) -> None:
    """The applied objects, with our own server's free ports in the place of the usual ones: many pods share one machine here."""
    if combination not in _BUILT:
        _BUILT[combination] = [each for each in cluster.build(MANIFESTS / "tests" / combination) if each["kind"] in APPLIED]
    built = copy.deepcopy(_BUILT[combination])
    template = next(each for each in built if each["kind"] == "Deployment")["spec"]["template"]["spec"]
    (server,) = template["containers"]
    server["ports"] = [{"name": name, "containerPort": free_port()} for name in ("rest", "grpc")]
    flags = {"--rest_api_port=": server["ports"][0], "--port=": server["ports"][1]}
    usual = [flag for flag in server["args"] if not flag.startswith(tuple(flags))]
    server["args"] = [*usual, *(f"{flag}{port['containerPort']}" for flag, port in flags.items())]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": built})
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=text.replace('"dual-deploy"', f'"{namespace}"'))


def free_port() -> int:
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def as_rollout(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the step has the identity classifier-rollout."""
    namespace = place.names.namespace
    api = connect(namespace, kubeconfig=Path(place.cluster.environment["KUBECONFIG"]), patience=10)
    api._client.default_headers["Impersonate-User"] = f"system:serviceaccount:{namespace}:classifier-rollout"
    monkeypatch.setattr(cluster_check, "connect_to", lambda _: api)


def failures(side: Side, **budgets: float | None) -> list[str]:
    """What the gate says of the cloud model's side."""
    settings = ValidateInfraSettings.model_validate({"budgets": {"cloud_size_mb": None, **budgets}})
    good = Side(failure="left out")
    return [text for text in judge_infra(side, good, settings).failures() if text != "mobile: left out"]


def assert_matches(pattern: str, text: str) -> None:
    assert re.search(pattern, text), text


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what} not within {timeout:g} s"
        time.sleep(0.05)
