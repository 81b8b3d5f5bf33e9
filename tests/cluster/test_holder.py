"""`python -m serving.fetch --hold` as a process, under the identity that the manifests give it, beside a real server."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.core.release import Release
from components.core.stores import Store
from serving.rollout.cluster.api import Api, connect
from serving.rollout.cluster.holding import Holding, record_text
from serving.rollout.cluster.names import HOLDS
from serving.rollout.servers import Server, ServerEntry
from serving.server.config import read_models
from serving.server.options import Options
from tests.cluster.conftest import MANIFESTS, NAMESPACE, Cluster, make_namespace
from tests.serving.harness import RunningServer
from tests.serving.rollout_site import live_traffic, make_real_releases

pytestmark = pytest.mark.cluster
HOST = "labels-0123ab"


class Pod:
    """The server, and whatever process holds beside it."""

    def __init__(self, root: Path, store: Store, kubeconfig: Path) -> None:
        config = root / "models.config"
        config.write_text("model_config_list {}")
        self.models, self.log = root / "classifier", root / "holder.log"
        self.running = RunningServer(read_models(config), Options(max_load_retries=0, poll_seconds=0.1))
        rest, grpc = self.running.ports.rest_port or 0, self.running.ports.grpc_port or 0
        where = {"host": "127.0.0.1", "rest_port": rest, "grpc_port": grpc}
        self.server = Server(ServerEntry(id="pod", pid=0, model_dir=str(self.models), name="classifier", **where))  # pyright: ignore
        self.environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "DUAL_STORE": store.uri,
            "DUAL_HOST": HOST,
            "DUAL_MODEL_DIR": str(self.models),
            "DUAL_REST_PORT": str(rest),
            "DUAL_GRPC_PORT": str(grpc),
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "serving.fetch", "--hold"]
            self.process = subprocess.Popen(command, env=self.environment, stderr=log, stdout=log)

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait(20)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, f"{what}: {self.server.states()}\n{self.log.read_text()}"
            time.sleep(0.05)

    def serves(self, release: Release, label: str = "stable") -> None:
        self.wait(lambda: self.server.label_version(label) == release.version, f"{label} at {release.id}")


@pytest.fixture
def api(quiet_cluster: Cluster) -> Iterator[Api]:
    """The namespace with the identities of the component labels, and the live Service."""
    make_namespace(quiet_cluster, NAMESPACE)
    built = quiet_cluster.build(MANIFESTS / "tests" / "labels-gcs-gpu")
    quiet_cluster.apply(*(each for each in built if each["kind"] in ("Role", "RoleBinding", "ServiceAccount")))
    quiet_cluster.apply(*(each for each in built if each["kind"] == "Service" and each["metadata"]["name"] == "classifier"))
    yield connect(NAMESPACE, kubeconfig=Path(quiet_cluster.environment["KUBECONFIG"]))
    quiet_cluster.kubectl("delete", "services,roles,rolebindings,serviceaccounts", "--all", "-n", NAMESPACE)


@pytest.fixture
def identity(quiet_cluster: Cluster, api: Api, tmp_path: Path) -> Path:
    """A kubeconfig of the server's ServiceAccount."""
    del api
    token = quiet_cluster.kubectl("create", "token", "classifier-server", "-n", NAMESPACE).stdout.strip()
    config = json.loads(quiet_cluster.kubectl("config", "view", "--raw", "--flatten", "-o", "json").stdout)
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    config["contexts"][0]["context"]["namespace"] = NAMESPACE
    path = tmp_path / "server.kubeconfig"
    path.write_text(json.dumps(config))
    return path


@pytest.fixture
def made(tmp_path: Path) -> tuple[Store, list[Release]]:
    return make_real_releases(tmp_path, 2)


@pytest.fixture
def pod(tmp_path: Path, made: tuple[Store, list[Release]], identity: Path) -> Iterator[Pod]:
    running = Pod(tmp_path, made[0], identity)
    running.start()
    yield running
    running.kill()
    running.server.close()
    running.running.stop()


def record(api: Api, stable: Release, *beside: Release, canary: Release | None = None) -> None:
    """What a rollout writes."""
    releases = dict.fromkeys((each.id for each in (stable, *beside, canary) if each), "")
    text = record_text({HOST: Holding(stable=stable.id, canary=canary.id if canary else None, releases=releases)})
    write(api, text)


def write(api: Api, text: str) -> None:
    annotations = api.get("Service", "classifier")["metadata"].get("annotations") or {}
    api.patch("Service", "classifier", [{"op": "add", "path": "/metadata/annotations", "value": {**annotations, HOLDS: text}}])


def test_it_holds_what_the_live_service_says_also_when_it_was_killed_and_no_request_fails(
    api: Api, pod: Pod, made: tuple[Store, list[Release]]
) -> None:
    a, b = made[1]
    pod.wait(lambda: "Service classifier says nothing of labels-0123ab: nothing is loaded before it does" in pod.log.read_text(), "a line")
    record(api, a)
    pod.serves(a)
    with live_traffic(pod.server) as problems:
        record(api, a, canary=b)
        pod.serves(b, "canary")
        pod.kill()
        record(api, b, a)
        pod.start()
        pod.serves(b)
        record(api, b)
        pod.wait(lambda: pod.server.states()[a.version][0] == "END", "the old version's end")
        began = time.monotonic()
        record(api, a, b)
        pod.serves(a)
        took = time.monotonic() - began
    assert problems == []
    assert took < 20, "a change is watched for, and not looked for now and then"


def test_what_it_holds_stays_when_the_record_is_lost_or_nobody_can_read_it(
    api: Api, pod: Pod, made: tuple[Store, list[Release]], quiet_cluster: Cluster
) -> None:
    a, _ = made[1]
    record(api, a)
    pod.serves(a)
    write(api, "{nonsense")
    pod.wait(lambda: "annotation dual.dev/holds: is malformed" in pod.log.read_text(), "a line")
    quiet_cluster.kubectl("delete", "rolebinding", "classifier-holder", "-n", NAMESPACE)
    pod.wait(lambda: "not allowed to GET it" in pod.log.read_text(), "another line")
    assert pod.server.label_version("stable") == a.version
    assert "what is held stays" in pod.log.read_text()


def test_it_ends_at_once_when_it_is_told_to(pod: Pod) -> None:
    assert pod.process
    pod.wait(lambda: "says nothing of" in pod.log.read_text(), "a line")
    pod.process.terminate()
    assert pod.process.wait(10) == 0
