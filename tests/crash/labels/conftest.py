"""An API server of these tests' own, whose pods are hosts with servers in memory, and victims."""

import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving.rollout.cluster.api import Api, connect
from tests.crash.cluster_site import make_namespace
from tests.crash.conftest import PARALLEL, RIG, ApiOf
from tests.crash.labels.kubelets import Kubelets, kubelets_of
from tests.crash.labels.site import channel_at, host_template
from tests.crash.labels.stage import LabelStage, stand
from tests.crash.labels.victims import LabelOrder
from tests.crash.labels.zygotes import LabelZygotes

Begin = Callable[[str], LabelOrder]


@pytest.fixture(scope="session")
def label_kubeconfig() -> Iterator[Path]:
    """An API server and etcd of its own: the other tests' controller would make every pod ready at once."""
    if not RIG.is_file():
        pytest.skip(f"needs a Kubernetes API server: the rig is not at {RIG} (set DUAL_SHARED)")
    name = f"labels-{os.getpid()}"
    done = subprocess.run([RIG, "control-plane", "up", name], check=True, capture_output=True, text=True)
    yield Path(done.stdout.strip().splitlines()[-1])
    subprocess.run([RIG, "control-plane", "down", name], check=True, capture_output=True)


@pytest.fixture(scope="session")
def label_api_of(label_kubeconfig: Path) -> ApiOf:
    """The API in a namespace, over connections that all tests share."""
    client = connect("default", kubeconfig=label_kubeconfig)._client
    return lambda namespace: Api(client, namespace, patience=20)


@pytest.fixture(scope="session")
def kubelets(label_kubeconfig: Path) -> Iterator[Kubelets]:
    with kubelets_of(label_kubeconfig) as running:
        yield running


@pytest.fixture(scope="session")
def begun(label_kubeconfig: Path, label_api_of: ApiOf, kubelets: Kubelets, tmp_path_factory: pytest.TempPathFactory) -> Begin:
    """Makes namespaces at one of the points `STARTS` of a rollout; the order in it ships release b."""
    numbers, root = itertools.count(1), tmp_path_factory.mktemp("channels")

    def make(start: str) -> LabelOrder:
        namespace = f"n{next(numbers)}"
        make_namespace(label_api_of(namespace), host_template())
        order = LabelOrder(str(label_kubeconfig), namespace, str(root / namespace), "b", "labels", "r0", pages=kubelets.address)
        stand(LabelStage(label_api_of(namespace), channel_at(order.channel), kubelets), start)
        return order

    return make


@pytest.fixture
def label_stage(begun: Begin, label_api_of: ApiOf, kubelets: Kubelets) -> LabelStage:
    """A namespace in which release a is promoted in a host, and nothing is in progress."""
    order = begun("promoted")
    return LabelStage(label_api_of(order.namespace), channel_at(order.channel), kubelets)


@pytest.fixture
def empty_label_stage(begun: Begin, label_api_of: ApiOf, kubelets: Kubelets) -> LabelStage:
    """A namespace with the applied objects and no rollout ever."""
    order = begun("nothing")
    return LabelStage(label_api_of(order.namespace), channel_at(order.channel), kubelets)


@pytest.fixture(scope="session")
def label_zygotes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelZygotes]:
    made = LabelZygotes(PARALLEL, tmp_path_factory.mktemp("label-victims"))
    yield made
    made.close()
