"""A real API server from the rig (etcd, kube-apiserver, controller-manager; no kubelet), with the CRDs that manifests ask for."""

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.crds import KINDS, crds
from tests.conftest import ROOT, SHARED

RIG = SHARED / "rig" / "rig"
MANIFESTS = ROOT / "manifests"
NAMESPACE = "dual-deploy"
Json = dict[str, Any]


@dataclass(frozen=True)
class Cluster:
    """An API server, and the tools that talk to it."""

    environment: dict[str, str]

    def run(self, *command: str | Path, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """A tool of the rig; what it printed."""
        text = [str(word) for word in command]
        done = subprocess.run(text, env=self.environment, input=stdin, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{' '.join(text)}: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done

    def kubectl(self, *arguments: str | Path, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Kubernetes' own client."""
        return self.run("kubectl", *arguments, stdin=stdin, check=check)

    def objects(self, *arguments: str) -> list[Json]:
        """What `kubectl get` finds."""
        found = json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)
        return found.get("items", [found])

    def apply(self, *bodies: Json) -> None:
        """Make sure of objects that are no part of what is tested, as another field manager."""
        manager = ["--server-side", "--field-manager=tests", "--force-conflicts"]
        self.kubectl("apply", *manager, "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(bodies)}))

    def build(self, folder: Path) -> list[Json]:
        """What a kustomization makes, as Kubernetes' own tool sees it."""
        built = self.kubectl("kustomize", folder).stdout
        # A dry run of the client turns YAML into JSON, and asks nobody.
        done = self.kubectl("create", "--dry-run=client", "--validate=false", "-o", "json", "-f", "-", stdin=built)
        return _documents(done.stdout)


def _documents(text: str) -> list[Json]:
    decoder, position, found = json.JSONDecoder(), 0, []
    while text[position:].strip():
        position += len(text[position:]) - len(text[position:].lstrip())
        value, position = decoder.raw_decode(text, position)
        found += value["items"] if value["kind"] == "List" else [value]
    return found


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """An API server with ServiceAccount admission, and the controller-manager that this needs."""
    with control_plane("--service-accounts") as found:
        yield found


@pytest.fixture(scope="session")
def quiet_cluster() -> Iterator[Cluster]:
    """An API server alone: nobody writes but the test."""
    with control_plane() as found:
        yield found


# Several control planes of one process may be up at once: those of the session, and those of a module beside them.
_NUMBERS = itertools.count(1)


@contextmanager
def control_plane(*flags: str) -> Iterator[Cluster]:
    """A control plane of the rig, with the CRDs."""
    if not RIG.is_file():
        pytest.skip(f"needs a Kubernetes API server: the rig is not at {RIG} (set DUAL_SHARED)")
    name = f"manifests-{os.getpid()}-{next(_NUMBERS)}"
    up = subprocess.run([RIG, "control-plane", "up", name, *flags], check=False, capture_output=True, text=True)
    assert up.returncode == 0, f"the rig can't start the control plane {name}: {up.stderr}"
    try:
        yield _ready(up.stdout.strip().splitlines()[-1])
    finally:
        subprocess.run([RIG, "control-plane", "down", name], check=True, capture_output=True)


def _ready(kubeconfig: str) -> Cluster:
    path = subprocess.run(["bash", "-c", f'eval "$("{RIG}" env)"; echo "$PATH"'], check=True, capture_output=True, text=True).stdout.strip()
    cluster = Cluster({**os.environ, "PATH": path, "KUBECONFIG": kubeconfig})
    cluster.apply(*crds())
    names = [f"crd/{plural}.{group}" for group, _, _, plural, _ in KINDS]
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
    return cluster


@pytest.fixture(scope="session")
def schemas(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JSON schemas of every kind that the API server knows."""
    folder = tmp_path_factory.mktemp("schemas")
    cluster.run(RIG, "schemas", folder)
    return folder


def make_namespace(cluster: Cluster, name: str) -> None:
    """A namespace in which Pod Security 'restricted' is enforced and warned of."""
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
