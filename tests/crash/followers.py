"""Followers for tests: in the test's own process, or as processes of their own, and rollouts as processes that die."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from components.core.stores import Store
from serving.rollout.cluster.api import Api
from serving.rollout.cluster.follow import Follower
from serving.rollout.cluster.settings import ClusterSettings
from tests.conftest import ROOT

ALIVE_WITHIN = 1.5
"""Seconds; in the plans of these tests."""


def make_follower(store: Store, api: Api, say: Callable[[str], None], *, run_id: str = "follower", **how: Any) -> Follower:
    """A follower that comes to the cluster by `api`."""
    settings = ClusterSettings(namespace=api.namespace, patience=2.0)
    return Follower(api, store, "classifier", settings, run_id, say, **how)


class Dual:
    """`dual rollout …` as a process of its own."""

    def __init__(self, store: Store, namespace: str, kubeconfig: Path, folder: Path, *arguments: str, plan: Mapping[str, Any] = {}) -> None:
        """Start it; its output goes to a file in `folder`."""
        self._log = folder / f"{arguments[0]}-{time.monotonic_ns()}.log"
        command = [
            sys.executable,
            "-m",
            "pipelines.cli",
            "rollout",
            *arguments,
            "--store",
            store.uri.removeprefix("file://"),
            "--namespace",
        ]
        command.append(namespace)
        if plan:
            file = self._log.with_suffix(".yaml")
            file.write_text(yaml.safe_dump(dict(plan)))
            command += ["--plan", str(file)]
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "PYTHONUNBUFFERED": "1"}
        with self._log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=ROOT)

    @property
    def output(self) -> str:
        """What it printed so far."""
        return self._log.read_text()

    def says(self, text: str, timeout: float = 60.0) -> None:
        """Wait until it printed something."""
        until(lambda: text in self.output or not self._is_running(), timeout, lambda: f"{text!r} was never said:\n{self.output}")
        assert text in self.output, self.output

    def kill(self) -> None:
        """End it as the kernel does when memory is short."""
        self.process.kill()
        self.process.wait(10)

    def terminate(self) -> int:
        """End it as Kubernetes does; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def wait(self, timeout: float = 60.0) -> int:
        """Its exit code."""
        return self.process.wait(timeout)

    def _is_running(self) -> bool:
        return self.process.poll() is None


@contextmanager
def started(*arguments: Any, **how: Any) -> Iterator[Dual]:
    """A `Dual` that does not outlive the block."""
    dual = Dual(*arguments, **how)
    try:
        yield dual
    finally:
        dual.kill()


def until(condition: Callable[[], bool], timeout: float = 30.0, what: Callable[[], str] = lambda: "it never came") -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)


def kubeconfig_of(address: str, folder: Path) -> Path:
    """A kubeconfig that leads to a plain address, as nobody."""
    cluster, context = {"name": "p", "cluster": {"server": address}}, {"name": "p", "context": {"cluster": "p", "user": "p"}}
    body = {"clusters": [cluster], "contexts": [context], "users": [{"name": "p", "user": {}}], "current-context": "p"}
    path = folder / "proxy.kubeconfig"
    path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **body}))
    return path
