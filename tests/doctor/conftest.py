"""An API server of its own, a namespace per test, and visits of the doctor to it."""

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines.doctor.finding import Finding
from pipelines.doctor.visit import Visit
from tests.cluster.conftest import RIG, Cluster, _ready
from tests.rollout.web import WebServer

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A kube-apiserver with its etcd, and with the CRDs that manifests ask for; no controller, so nothing changes by itself."""
    if not RIG.is_file():
        pytest.skip(f"needs a Kubernetes API server: the rig is not at {RIG} (set DUAL_SHARED)")
    name = f"doctor-{os.getpid()}"
    up = subprocess.run([RIG, "control-plane", "up", name], check=True, capture_output=True, text=True)
    try:
        yield _ready(up.stdout.strip().splitlines()[-1])
    finally:
        subprocess.run([RIG, "control-plane", "down", name], check=True, capture_output=True)


@dataclass(frozen=True)
class Place:
    """A namespace of the API server, and how the doctor gets there."""

    cluster: Cluster
    namespace: str

    def visit(self, **options: Any) -> Visit:
        """A visit to this namespace, as administrator."""
        there = {"kubeconfig": Path(self.cluster.environment["KUBECONFIG"]), "namespace": self.namespace}
        return Visit(**{"target": "kubeflow", "connection": _Runs(self.namespace), **there, **options})

    def apply(self, *bodies: dict[str, Any]) -> None:
        """Make objects in the namespace."""
        self.cluster.apply(*({**body, "metadata": {"namespace": self.namespace, **body["metadata"]}} for body in bodies))

    def status(self, kind: str, name: str, status: dict[str, Any], *, namespaced: bool = True) -> None:
        """Write a status, as a controller or a kubelet would."""
        where = ["-n", self.namespace] if namespaced else []
        patch = json.dumps({"status": status})
        self.cluster.kubectl("patch", kind, name, *where, "--subresource=status", "--type=merge", "-p", patch)


@dataclass(frozen=True)
class _Runs:
    """What a visit reads of a connection: runs are in the same namespace as the served model, and Kubeflow too."""

    system_namespace: str
    namespace: str = ""


@pytest.fixture
def place(cluster: Cluster) -> Iterator[Place]:
    """A fresh namespace."""
    name = f"d{next(_numbers)}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield Place(cluster, name)
    cluster.kubectl("delete", "nodes,storageclasses", "--all", "--wait=false")


def only(findings: list[Finding]) -> Finding:
    """The single finding."""
    (found,) = findings
    return found


def answer_head(server: WebServer) -> WebServer:
    """Let a server of the tests answer HEAD as GET, without the body."""
    handler: Any = server._server.RequestHandlerClass
    write = handler._write
    handler.do_HEAD = handler.do_GET
    handler._write = lambda self, content, drip: None if self.command == "HEAD" else write(self, content, drip)
    return server
