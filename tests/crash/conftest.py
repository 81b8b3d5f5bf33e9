"""An API server without kubelet from the rig, a stand-in for the controllers, and victims."""

import itertools
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from serving.rollout.cluster.api import Api, Json, connect
from tests.cluster.crds import crds
from tests.conftest import SHARED
from tests.crash.cluster_site import Controller, FileChannel, Snapshot, controller_of, make_namespace
from tests.crash.followers import Followed
from tests.crash.stage import Stage
from tests.crash.starts import STARTS
from tests.crash.victims import Order, Zygotes
from tests.release_pieces import make_store

RIG = SHARED / "rig" / "rig"
PARALLEL = 4
"""Cases at once: most of a case is waiting, for the API server's list cache and for polls."""
ApiOf = Callable[[str], Api]


@pytest.fixture(scope="session")
def kubeconfig() -> Iterator[Path]:
    """An API server and etcd of its own, nothing else."""
    if not RIG.is_file():
        pytest.skip(f"needs a Kubernetes API server: the rig is not at {RIG} (set DUAL_SHARED)")
    name = f"crash-{os.getpid()}"
    done = subprocess.run([RIG, "control-plane", "up", name], check=True, capture_output=True, text=True)
    yield Path(done.stdout.strip().splitlines()[-1])
    subprocess.run([RIG, "control-plane", "down", name], check=True, capture_output=True)


@pytest.fixture(scope="session")
def api_of(kubeconfig: Path) -> ApiOf:
    """The API in a namespace, over connections that all tests share."""
    client = connect("default", kubeconfig=kubeconfig)._client
    return lambda namespace: Api(client, namespace, patience=20)


@pytest.fixture(scope="session")
def controller(kubeconfig: Path) -> Iterator[Controller]:
    with controller_of(kubeconfig) as running:
        yield running


@pytest.fixture(scope="session")
def bare(kubeconfig: Path, api_of: ApiOf, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Order]:
    """Makes namespaces with the applied objects and no rollout ever; the order in it ships release a."""
    numbers, root = itertools.count(1), tmp_path_factory.mktemp("channels")

    def make() -> Order:
        namespace = f"n{next(numbers)}"
        make_namespace(api_of(namespace))
        return Order(str(kubeconfig), namespace, str(root / namespace), "a", "canary", "r0")

    return make


@pytest.fixture(scope="session")
def started(controller: Controller, api_of: ApiOf, bare: Callable[[], Order]) -> Callable[[str], Order]:
    """Makes namespaces at one of the points `STARTS` of a rollout; the order in it ships a again."""
    del controller
    made: dict[str, tuple[Order, Snapshot]] = {}
    one_at_a_time = threading.Lock()

    def snapshot(start: str) -> tuple[Order, Snapshot]:
        with one_at_a_time:
            if start not in made:
                first = bare()
                STARTS[start](Stage(api_of(first.namespace), channel_of(first)))
                made[start] = (first, Snapshot.of(api_of(first.namespace)))
        return made[start]

    def make(start: str) -> Order:
        order = bare()
        if start != "nothing":
            first, taken = snapshot(start)
            shutil.copyfile(first.channel, order.channel)
            taken.copy_to(api_of(order.namespace))
        return order

    return make


@pytest.fixture(scope="session")
def settled(started: Callable[[str], Order]) -> Callable[[], Order]:
    """Makes namespaces in which release a is promoted and nothing is in progress; the order in it ships a again."""
    return partial(started, "promoted")


@pytest.fixture(scope="session")
def make_crd(api_of: ApiOf) -> Callable[[Json], None]:
    """Teaches the API server a kind; returns when it knows it."""
    api = api_of("default")

    def make(crd: Json) -> None:
        how: Any = {"auth_settings": ["BearerToken"], "_preload_content": False, "_return_http_data_only": True}
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        api._client.call_api(path, "POST", body=crd, header_params={"Content-Type": "application/json"}, **how)
        while not is_served(json.loads(api._client.call_api(f"{path}/{crd['metadata']['name']}", "GET", **how).data)):
            time.sleep(0.05)
        # Established, and yet a moment passes until it is served.
        api.find(crd["spec"]["names"]["kind"], "nobody")

    return make


@pytest.fixture(scope="session")
def gateway_api(make_crd: Callable[[Json], None]) -> None:
    """The API server knows HTTPRoute."""
    for crd in crds():
        if crd["spec"]["names"]["kind"] == "HTTPRoute":
            make_crd(crd)


def is_served(crd: Json) -> bool:
    """Whether the API server answers for the kind."""
    return any(each["type"] == "Established" and each["status"] == "True" for each in crd.get("status", {}).get("conditions", []))


@pytest.fixture
def stage(settled: Callable[[], Order], api_of: ApiOf) -> Stage:
    """A namespace in which release a is promoted and nothing is in progress."""
    order = settled()
    return Stage(api_of(order.namespace), channel_of(order))


@pytest.fixture
def empty_stage(controller: Controller, bare: Callable[[], Order], api_of: ApiOf) -> Stage:
    """A namespace with the applied objects and no rollout ever."""
    del controller
    order = bare()
    return Stage(api_of(order.namespace), channel_of(order))


@pytest.fixture(scope="session")
def zygotes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygotes]:
    made = Zygotes(PARALLEL, tmp_path_factory.mktemp("victims"))
    yield made
    made.close()


@pytest.fixture
def followed(empty_stage: Stage, tmp_path: Path, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Followed:
    """An installation whose plans give a dead process little time, with the operators' plan in the cluster."""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setattr("serving.rollout.cluster.due.UNHELD_WITHIN", 0.3)
    store, releases = make_store(tmp_path, 3)
    made = Followed(empty_stage, store, [release.id for release in releases])
    made.keep_plan()
    return made


def channel_of(order: Order) -> FileChannel:
    """The order's channel."""
    return FileChannel(Path(order.channel))
