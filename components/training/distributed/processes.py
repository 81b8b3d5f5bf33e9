"""Workers as processes of this machine: several sockets, or a try of what pods do."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from components.training.distributed.coordinate import WorkersError
from components.training.distributed.worker import CRASHED, INDEX, PEER_LOST, WORKERS
from components.training.train import Job

_PATIENCE = 10.0
_TAIL = 1500


class Processes:
    """As `Crew` says."""

    pause = 0.2

    def __init__(self, job: Job, order: str) -> None:
        """Nothing runs yet."""
        self._job, self._order = job, order
        self._started_again = [0] * job.settings.workers.count
        self._addresses = ",".join(f"127.0.0.1:{port}" for port in free_ports(job.settings.workers.count))
        self._folder = TemporaryDirectory(prefix="dual-workers-", ignore_cleanup_errors=True)
        self.running: list[subprocess.Popen[bytes]] = []
        self.restarts: list[str] = []

    def __enter__(self) -> Self:
        """Start all."""
        for index in range(len(self._started_again)):
            self.running.append(self._start(index))
        return self

    def __exit__(self, *_: object) -> None:
        """End all."""
        for process in self.running:
            process.terminate()
        for process in self.running:
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._folder.cleanup()

    def look(self) -> None:
        """As `Crew` says."""
        for index, process in enumerate(self.running):
            if process.poll():
                self._again(index, process.returncode)

    def describe(self) -> str:
        """As `Crew` says."""
        return ", ".join(f"worker {index} {_state(process)}" for index, process in enumerate(self.running))

    def _again(self, index: int, code: int) -> None:
        allowed = self._job.settings.workers.restarts
        if self._started_again[index] >= allowed or not may_pass(code):
            what = f"worker {index} {_state(self.running[index])}: {self._tail(index)}"
            raise WorkersError(what, where=self._job.record.step, fix="Remove the reason, or raise workers.restarts; then run again")
        self._started_again[index] += 1
        self.restarts.append(f"worker {index} {_state(self.running[index])}: started again ({self._started_again[index]} of {allowed})")
        self._job.record.say(self.restarts[-1])
        self.running[index] = self._start(index)

    def _start(self, index: int) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "components.training.distributed.worker", self._job.record.store.uri, self._order]
        environment = {**os.environ, WORKERS: self._addresses, INDEX: str(index)}
        with self._log(index).open("ab") as log:
            return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _log(self, index: int) -> Path:
        return Path(self._folder.name) / f"worker-{index}.log"

    def _tail(self, index: int) -> str:
        return self._log(index).read_bytes()[-_TAIL:].decode(errors="replace").strip()


def may_pass(code: int) -> bool:
    """Whether a worker that ended so may be started again: a lost peer, a signal or a crash; not what would be refused again."""
    return code in (PEER_LOST, CRASHED) or code < 0


def _state(process: "subprocess.Popen[bytes]") -> str:
    code = process.poll()
    if code is None:
        return "runs"
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
