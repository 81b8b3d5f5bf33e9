"""Followers for tests: in the test's own process, or as processes of their own, and rollouts as processes that die."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from components.core.stores import Store
from serving.rollout.cluster.api import Api
from serving.rollout.cluster.follow import Follower, Stopped
from serving.rollout.cluster.names import ACTION
from serving.rollout.cluster.settings import ClusterSettings
from tests.conftest import ROOT
from tests.crash.test_pair import Installation

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


class Followed(Installation):
    """An installation whose plans leave dead processes little time, with the operators' plan in the cluster."""

    def settings(self, **plan: Any) -> ClusterSettings:
        return super().settings(**{"alive_within": ALIVE_WITHIN, **plan})

    def keep_plan(self) -> None:
        """Put the plan where an undo finds it."""
        plan = self.settings().plan
        assert plan is not None
        body = {"settings.yaml": plan.model_dump_json()}
        self.stage.api.create("ConfigMap", {"metadata": {"name": "classifier-rollout-settings"}, "data": body})

    def follower(self, **how: Any) -> Follower:
        # Its own: what it does at each call is not everybody's.
        return make_follower(self.store, Api(self.stage.api._client, self.stage.api.namespace, patience=5), self.said.append, **how)

    def follow(self, **how: Any) -> str:
        """Let a follower do what is due; what it said."""
        before = len(self.said)
        self.follower(**how).run(once=True)
        return "\n".join(self.said[before:])

    def ask(self, action: str) -> None:
        self.stage.ask(action)()

    def asked(self) -> str:
        """The annotation now; empty without one."""
        return (self.stage.api.get("ConfigMap", "classifier-rollout")["metadata"].get("annotations") or {}).get(ACTION, "")

    def events(self) -> list[str]:
        """What the cluster's Events say, and by which reason."""
        return [f"{each['type']} {each['reason']}: {each['message']}" for each in self.stage.api.list("Event", "")]


@contextmanager
def going_on(follower: Follower) -> Iterator[threading.Thread]:
    """A follower in a thread, for as long as the block runs."""
    ended = threading.Event()

    def pause(seconds: float) -> None:
        if ended.wait(min(seconds, 0.2)):
            raise Stopped

    def beat() -> None:
        if ended.is_set():
            raise Stopped

    follower.pause, follower.api.asking = pause, beat
    thread = threading.Thread(target=follower.run, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        ended.set()


@contextmanager
def shown(followed: Followed, number: int, phase: str, **plan: Any) -> Iterator[None]:
    """A rollout that came to a phase, whose process shows that it lives for as long as the block runs."""
    machine = followed.stand(number, phase, **plan)
    with machine.presence.shown():
        yield
