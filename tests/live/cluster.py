"""A real cluster with real pods: the rig's, or any other by DUAL_TEST_KUBECONFIG, with our images in it."""

import fcntl
import functools
import http.server
import json
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.load import Target
from components.core.digest import sha256_file, sha256_json
from serving.rollout.cluster.api import Api, connect
from serving.rollout.cluster.settings import ClusterSettings, Plan
from tests.conftest import ROOT, SHARED
from tests.live.releases import IMAGES, Releases

RIG = SHARED / "rig" / "rig"
RIG_NAME = os.environ.get("RIG_NAME", "live")
REGISTRY = "registry.local:5000"
IMAGES_BUILT = ("dual-deployer", "dual-server")
REPLICAS = 2


@dataclass(frozen=True)
class LiveCluster:
    """How to reach a cluster and its tools."""

    environment: dict[str, str]
    host: str
    """This machine's address as pods see it."""

    @property
    def kubeconfig(self) -> Path:
        """The cluster's kubeconfig."""
        return Path(self.environment["KUBECONFIG"])

    def run(self, *command: str | Path, stdin: str = "", check: bool = True) -> str:
        """A tool's output; AssertionError with what it said if it fails."""
        words = [str(word) for word in command]
        done = subprocess.run(words, env=self.environment, input=stdin, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{' '.join(words)}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def kubectl(self, *arguments: str | Path, stdin: str = "", check: bool = True) -> str:
        """Kubectl's output."""
        return self.run("kubectl", *arguments, stdin=stdin, check=check)

    def rig(self, *arguments: str | Path) -> str:
        """The rig's output."""
        return self.run(RIG, *arguments)

    def build_image(self, name: str) -> str:
        """Build one of our Dockerfiles into the cluster's registry, where it is under a tag of what it is made of; its full name."""
        image = f"{REGISTRY}/{name}:{image_tag()}"
        self.rig("images", "build", "-t", image, "-f", ROOT / "images" / name / "Dockerfile", ROOT)
        return image


def rig_environment() -> dict[str, str]:
    """The environment that `rig env` prints, for the cluster of these tests."""
    command = f'export RIG_NAME={RIG_NAME}; eval "$("{RIG}" env)"; env -0'
    found = subprocess.run(["bash", "-c", command], check=True, capture_output=True, text=True).stdout
    return dict(line.split("=", 1) for line in found.split("\0") if "=" in line)


@functools.cache
def image_tag() -> str:
    """A tag of what the images are made of: a node that has an image under a tag does not ask for it again."""
    sources = [path for root in ("components", "pipelines", "serving", "images") for path in sorted((ROOT / root).rglob("*"))]
    files = [path for path in [*sources, ROOT / "pyproject.toml", ROOT / "uv.lock"] if path.is_file() and "__pycache__" not in path.parts]
    return f"test-{sha256_json([[path.relative_to(ROOT).as_posix(), sha256_file(path)] for path in files])[:12]}"


@contextmanager
def rig_cluster(log: Callable[[str], None] = lambda _: None) -> Iterator[LiveCluster]:
    """The rig's cluster with our images in its registry; taken down at the end, images kept for the next time."""
    environment = {**os.environ, "RIG_NAME": RIG_NAME}
    began = time.monotonic()
    with one_at_a_time():
        done = _up(environment)
        assert done.returncode == 0, f"rig up: {done.stderr[-2000:]}"
        yield from _running(environment, began, log)


def _up(environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run([RIG, "up"], env=environment, check=False, capture_output=True, text=True)
    if done.returncode and done.stderr.endswith("is down\n"):
        # On a busy machine the rig looks for its cluster's first process before it is there. It is then: `up` goes on with it.
        done = subprocess.run([RIG, "up"], env=environment, check=False, capture_output=True, text=True)
    return done


def _running(environment: dict[str, str], began: float, log: Callable[[str], None]) -> Iterator[LiveCluster]:
    try:
        cluster = LiveCluster(rig_environment(), "")
        log(f"cluster up after {time.monotonic() - began:.0f} s")
        for image in IMAGES_BUILT:
            cluster.build_image(image)
            log(f"{image} built after {time.monotonic() - began:.0f} s")
        yield LiveCluster(cluster.environment, _host(cluster))
    finally:
        subprocess.run([RIG, "down"], env=environment, check=False, capture_output=True)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Wait until no other process uses the cluster of these tests: each takes it down at its end."""
    path = Path(tempfile.gettempdir()) / f"dual-rig-{RIG_NAME}.lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _host(cluster: LiveCluster) -> str:
    nodes = json.loads(cluster.kubectl("get", "nodes", "-o", "json"))["items"]
    address = next(each["address"] for each in nodes[0]["status"]["addresses"] if each["type"] == "InternalIP")
    # The rig's own rule: the host is .1 of the node's network.
    return address.rpartition(".")[0] + ".1"


@contextmanager
def served(folder: Path, address: str) -> Iterator[str]:
    """A folder over HTTP on one address; its URL."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            return

    handler = functools.partial(Quiet, directory=str(folder))
    for port in range(8100, 8999):
        try:
            server = http.server.ThreadingHTTPServer((address, port), handler)
            break
        except OSError:
            continue
    else:
        raise AssertionError(f"no free port at {address}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{address}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@dataclass(frozen=True)
class LiveSite:
    """One served model in a namespace of its own."""

    cluster: LiveCluster
    namespace: str
    releases: Releases
    api: Api
    strategy: str = "canary"

    def settings(self, **plan: Any) -> ClusterSettings:
        """Settings for the actions: quick, so that tests end; `plan` changes the plan."""
        # Pods on a busy machine are slow, and everything here runs on it.
        analysis = {"interval": 1.0, "count": 2, "latency_p99_ms": {"max": 5000.0}, "latency_p99_vs_stable": {"ratio": None}}
        quick = {
            "steps": [{"weight": 30}, {"weight": 50}],
            "analysis": analysis | plan.pop("analysis", {}),
            "scale_down_delay": 3.0,
            "progress_deadline": 240.0,
            "poll_seconds": 0.5,
            "strategy": self.strategy,
        }
        return ClusterSettings(namespace=self.namespace, plan=Plan.model_validate(quick | plan))

    def await_service(self, timeout: float = 60.0) -> None:
        """Wait until the live Service's address leads somewhere: the node's proxy needs a moment after the first pods are ready."""
        address, deadline = self.target().address, time.monotonic() + timeout
        for port in (8500, 8501):
            while not _connects(address, port):
                assert time.monotonic() < deadline, f"{address}:{port} did not answer within {timeout:g} s"
                time.sleep(0.1)

    def keep_plan(self) -> None:
        """Make the quick plan the operators' own: an undo follows that one."""
        plan = self.settings().plan
        assert plan is not None
        value = {"settings.yaml": yaml.safe_dump(plan.model_dump(mode="json"))}
        self.api.patch("ConfigMap", "classifier-rollout-settings", [{"op": "add", "path": "/data", "value": value}])

    def identity(self, folder: Path) -> Path:
        """A kubeconfig of the rollout's own identity, with what its Role allows and nothing more."""
        config = yaml.safe_load(self.cluster.kubeconfig.read_text())
        token = self.cluster.kubectl("-n", self.namespace, "create", "token", "classifier-rollout", "--duration=2h").strip()
        config["users"][0]["user"] = {"token": token}
        config["contexts"][0]["context"]["namespace"] = self.namespace
        path = folder / "rollout.kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path

    def target(self) -> Target:
        """The live Service for a load."""
        service = self.api.get("Service", "classifier")
        label = "stable" if self.strategy == "labels" else ""
        return Target(service["spec"]["clusterIP"], "classifier", IMAGES, self.releases.expected, label=label)

    def pods(self, selector: str = "app.kubernetes.io/component=server") -> list[dict[str, Any]]:
        """The server pods."""
        return list(self.api.list("Pod", selector))

    def delete(self) -> None:
        """Remove the namespace."""
        self.cluster.kubectl("delete", "namespace", self.namespace, "--wait=false")


def _connects(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=2).close()
    except OSError:
        return False
    return True


@contextmanager
def live_site(
    cluster: LiveCluster, releases: Releases, folder: Path, namespace: str, *, replicas: int = REPLICAS, strategy: str = "canary"
) -> Iterator[LiveSite]:
    """Apply the manifests for our server's image and a strategy to a new namespace; everything is gone at the end."""
    root = Path(releases.store.uri.removeprefix("file://"))
    with served(root, cluster.host) as url:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization(folder, namespace, url, replicas, strategy)))
        cluster.kubectl("apply", "-k", folder)
        site = LiveSite(cluster, namespace, releases, connect(namespace, kubeconfig=cluster.kubeconfig), strategy)
        site.keep_plan()
        try:
            yield site
        finally:
            site.delete()


def kustomization(folder: Path, namespace: str, url: str, replicas: int, strategy: str = "canary") -> dict[str, Any]:
    """An overlay as a user would write it: the base, a store over http, our server's image, Pod Security restricted, small pods."""
    manifests = os.path.relpath(ROOT / "manifests", folder)
    resources = {"requests": {"cpu": "50m", "memory": "300Mi"}, "limits": {"cpu": "2", "memory": "2Gi"}}
    server = {"name": "server", "resources": resources, "lifecycle": {"preStop": {"sleep": {"seconds": 4}}}}
    pod = {"containers": [server], "terminationGracePeriodSeconds": 15}
    template = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "classifier"}, "spec": {"template": {"spec": pod}}}
    template["metadata"]["annotations"] = {"dual.dev/replicas": str(replicas)}
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": namespace,
        "resources": [f"{manifests}/base"],
        "components": [f"{manifests}/components/{name}" for name in ("psa", "http", "local-server", strategy)],
        "configMapGenerator": [{"name": "classifier-store", "behavior": "merge", "literals": [f"uri={url}"]}],
        "images": [{"name": name, "newName": f"{REGISTRY}/{name}", "newTag": image_tag()} for name in IMAGES_BUILT],
        "patches": [{"patch": yaml.safe_dump(template)}],
    }
