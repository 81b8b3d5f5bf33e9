"""A place for the compiled pipeline: a store on this machine, a namespace for its steps and one for what is served."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from components.core.stores import open_store
from serving.rollout.cluster.api import connect
from tests.live.cluster import LiveCluster, LiveSite, kustomization
from tests.live.compiled import Json, Task
from tests.live.releases import Releases
from tests.live.task_pod import config_map_of, pod_of

BUCKET = "dual"
STORE = f"gs://{BUCKET}/store"
ARTIFACTS = f"gs://{BUCKET}/artifacts"
PHOTOS = f"gs://{BUCKET}/photos"
SIGNING = "dual-signing"
_LAUNCHER = Path(__file__).with_name("launcher.py")


@contextmanager
def bucket_at(cluster: LiveCluster) -> Iterator[str]:
    """Fake-gcs-server on this machine's address that pods reach, with one bucket; its URL."""
    with socket.create_server((cluster.host, 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://{cluster.host}:{port}"
    command = ["fake-gcs-server", "-scheme", "http", "-host", cluster.host, "-port", str(port), "-backend", "memory"]
    server = subprocess.Popen([*command, "-external-url", url, "-log-level", "error"], env=cluster.environment)
    try:
        _make_bucket(url)
        yield url
    finally:
        server.terminate()
        server.wait(10)


def _make_bucket(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            httpx.post(f"{url}/storage/v1/b?project=test", json={"name": BUCKET}, trust_env=False).raise_for_status()
            return
        except httpx.ConnectError:
            # It listens a moment after it was started, and says so to nobody.
            assert time.monotonic() < deadline, "fake-gcs-server did not start"
            time.sleep(0.05)


@contextmanager
def serving_namespace(cluster: LiveCluster, name: str, steps: str, store_url: str, folder: Path) -> Iterator[LiveSite]:
    """The manifests, with releases from the bucket, and rights for the pipeline of the namespace `steps`; gone at the end."""
    overlay = kustomization(folder, name, STORE, replicas=1)
    overlay["components"] = [each.replace("/http", "/infra-check") for each in overlay["components"]]
    overlay["components"].append(overlay["components"][0].replace("/psa", "/pipeline-runner"))
    fetch = [{"name": "fetch", "env": [{"name": "STORAGE_EMULATOR_HOST", "value": store_url}]}]
    template = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "classifier"}}
    runner = {"target": {"kind": "RoleBinding", "name": "classifier-rollout-pipeline-runner"}}
    overlay["patches"] += [
        {"patch": yaml.safe_dump({**template, "spec": {"template": {"spec": {"initContainers": fetch}}}})},
        {**runner, "patch": yaml.safe_dump([{"op": "replace", "path": "/subjects/0/namespace", "value": steps}])},
    ]
    folder.mkdir(parents=True)
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    cluster.kubectl("apply", "-k", folder)
    nothing = Releases(open_store(str(folder / "store")), {}, {})
    site = LiveSite(cluster, name, nothing, connect(name, kubeconfig=cluster.kubeconfig))
    site.keep_plan()
    try:
        yield site
    finally:
        site.delete()


@dataclass
class Steps:
    """Runs tasks as pods of one namespace, one after the other."""

    cluster: LiveCluster
    namespace: str
    store_url: str
    signing_key: str
    """A private key as PEM."""
    told: dict[str, Json] = field(default_factory=dict)
    """Task → what its launcher told."""
    pods: dict[str, Json] = field(default_factory=dict)
    """Task → its pod as it ended."""

    def __enter__(self) -> "Steps":
        """Make the namespace and the account that KFP runs steps as."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self._apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace, "labels": labels}})
        metadata = {"name": "pipeline-runner", "namespace": self.namespace}
        self._apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        key = {"metadata": {"name": SIGNING, "namespace": self.namespace}, "stringData": {"key": self.signing_key}}
        self._apply({"apiVersion": "v1", "kind": "Secret", **key})
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the namespace."""
        self.cluster.kubectl("delete", "namespace", self.namespace, "--wait=false")

    def execute(self, task: Task) -> Json:
        """Run one task to its end; the executor's output. AssertionError with its log if it failed."""
        report = f"{ARTIFACTS}/told/{task.name}.json"
        self._apply(config_map_of(task, f"{task.name}-input", self.namespace, _LAUNCHER.read_text()))
        self._apply(pod_of(task, self.namespace, f"{task.name}-input", report))
        self._await_end(task)
        pod = json.loads(self._kubectl("get", "pod", task.name, "-o", "json"))
        assert pod["status"]["phase"] == "Succeeded", f"{task.name}: {pod['status']}\n{self._kubectl('logs', task.name, '--tail=60')}"
        self.pods[task.name], self.told[task.name] = pod, json.loads(self._read(report))
        return self.told[task.name]["output"]

    def _await_end(self, task: Task) -> None:
        ended = "--for=jsonpath={.status.containerStatuses[0].state.terminated}"
        waited = self._kubectl("wait", f"pod/{task.name}", ended, "--timeout=300s", check=False)
        assert waited, (
            f"{task.name} did not end\n{self._kubectl('describe', 'pod', task.name)}\n{self._kubectl('logs', task.name, check=False)}"
        )
        self._kubectl("wait", f"pod/{task.name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=10s", check=False)

    def _read(self, uri: str) -> bytes:
        name = uri.removeprefix(f"gs://{BUCKET}/").replace("/", "%2F")
        return httpx.get(f"{self.store_url}/storage/v1/b/{BUCKET}/o/{name}?alt=media", trust_env=False).raise_for_status().content

    def _apply(self, body: Json) -> None:
        self.cluster.kubectl("create", "-f", "-", stdin=json.dumps(body))

    def _kubectl(self, *arguments: str, check: bool = True) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, check=check)


def site_file(folder: Path, store_url: str, namespace: str, settings: dict[str, Any]) -> Path:
    """A site's configuration for `dual compile --config`; the key that signs the channel is a Secret that one step gets."""
    emulator = {"STORAGE_EMULATOR_HOST": store_url}
    secret = {"name": SIGNING, "env": {"key": "DUAL_SIGNING_KEY"}, "steps": ["publish_mobile"]}
    site = {"data": "drawn", "store": STORE, "pipeline_root": ARTIFACTS, "serving_namespace": namespace, "env": emulator}
    site["secrets"] = [secret]
    # Two shards of ingest and of each evaluation, so that those steps run in their images too.
    shared = {"sharding": {"enabled": True}, "settings": {**settings, "sharding": {"images": 10, "most": 2}}}
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump({"kubeflow": {**site, **shared}}))
    return path
