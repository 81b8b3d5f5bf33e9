"""What tests and the benchmark do with a live site: the step as a process, phases as they pass, and the load's answers by phase."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import yaml

from benchmarks.load import Answered
from serving.rollout.cluster.names import Names
from serving.rollout.cluster.settings import ClusterSettings
from serving.rollout.cluster.state import Book, ClusterRollout, Event
from tests.conftest import ROOT
from tests.live.cluster import LiveSite


class Step:
    """`dual rollout …` as a process of its own, with the rollout's own identity."""

    def __init__(self, site: LiveSite, folder: Path, *arguments: str, settings: ClusterSettings | None = None) -> None:
        """Start it; its output goes to a file."""
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / f"{arguments[0]}-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "pipelines.cli", "rollout", *arguments, "--store", site.releases.store.uri.removeprefix("file://")]
        command += ["--namespace", site.namespace]
        if settings is not None and settings.plan is not None:
            plan = folder / "plan.yaml"
            plan.write_text(yaml.safe_dump(settings.plan.model_dump(mode="json")))
            command += ["--plan", str(plan)]
        environment = {**os.environ, "KUBECONFIG": str(site.identity(folder))}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=ROOT)

    def wait(self, timeout: float = 400.0) -> int:
        """Its exit code."""
        return self._process.wait(timeout)

    def kill(self) -> None:
        """End it as the kernel does when memory is short."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """What it printed so far."""
        return self._log.read_text()


def state_of(site: LiveSite) -> ClusterRollout | None:
    """The rollout's state now."""
    return Book(site.api, Names(namespace=site.namespace)).read()


def wait_for(condition: Callable[[], bool], what: str, timeout: float = 300.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what} not within {timeout:g} s"
        time.sleep(0.1)


def wait_for_phase(site: LiveSite, *phases: str, step: Step | None = None) -> ClusterRollout:
    """Wait until the rollout is in one of these phases."""

    def reached() -> bool:
        state = state_of(site)
        assert step is None or step.is_running() or (state is not None and state.phase in phases), step.output
        return state is not None and state.phase in phases

    wait_for(reached, f"phase {' or '.join(phases)}")
    state = state_of(site)
    assert state is not None
    return state


def spans(events: list[Event]) -> Iterator[tuple[Event, float, float]]:
    """Each event with the monotonic times of its beginning and of its end."""
    shift = time.monotonic() - time.time()
    moments = [datetime.fromisoformat(event.at).timestamp() + shift for event in events]
    yield from zip(events, moments, [*moments[1:], float("inf")], strict=True)


def answers_between(answers: list[Answered], begin: float, end: float) -> list[Answered]:
    """The answers to requests that were sent within a span."""
    return [each for each in answers if begin <= each.at and each.at + each.seconds < end]
