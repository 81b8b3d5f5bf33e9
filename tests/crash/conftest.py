"""An API server without kubelet from the rig, a stand-in for the controllers, and victims."""

import itertools
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import SHARED
from tests.crash.cluster_site import Controller, FileChannel, controller_of, copy_settled, make_namespace
from tests.crash.victims import Order, Zygote

RIG = SHARED / "rig" / "rig"


@pytest.fixture(scope="session")
def kubeconfig() -> Iterator[Path]:
    """An API server and etcd, nothing else."""
    if not RIG.is_file():
        pytest.skip(f"needs a Kubernetes API server: the rig is not at {RIG} (set DUAL_SHARED)")
    done = subprocess.run([RIG, "control-plane", "up", "crash"], check=True, capture_output=True, text=True)
    yield Path(done.stdout.strip().splitlines()[-1])
    subprocess.run([RIG, "control-plane", "down", "crash"], check=True, capture_output=True)


@pytest.fixture(scope="session")
def controller(kubeconfig: Path) -> Iterator[Controller]:
    with controller_of(kubeconfig) as running:
        yield running


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    made = Zygote(tmp_path_factory.mktemp("victims") / "log")
    yield made
    made.close()


@pytest.fixture(scope="session")
def settled(kubeconfig: Path, controller: Controller, zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Order]:
    """Makes namespaces in which release a is promoted and nothing is in progress; the order in it ships a again."""
    numbers = itertools.count(1)
    root = tmp_path_factory.mktemp("channels")

    def bare() -> Order:
        namespace = f"n{next(numbers)}"
        make_namespace(kubeconfig, namespace)
        return Order(str(kubeconfig), namespace, str(root / namespace), "a", "canary", "r0")

    first = bare()
    controller.watch(first.namespace)
    assert zygote.run(first)["code"] == 0
    source = controller.apis[first.namespace]
    controller.forget(first.namespace)

    def make() -> Order:
        order = bare()
        shutil.copyfile(first.channel, order.channel)
        controller.watch(order.namespace)
        copy_settled(source, controller.apis[order.namespace])
        return order

    return make


@pytest.fixture
def ship(zygote: Zygote) -> Callable[..., int]:
    """Run an order with changes; its exit code."""
    return lambda order, **changes: zygote.run(replace(order, **changes))["code"]


def channel_of(order: Order) -> FileChannel:
    """The order's channel."""
    return FileChannel(Path(order.channel))
