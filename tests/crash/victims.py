"""Processes that are killed or stopped at a chosen write to the API server, and what they do until then; forked in milliseconds."""

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Queue
from typing import Any, Literal

from components.core.errors import DualError, RolloutError
from serving.rollout.cluster.api import Api, Json, connect
from serving.rollout.cluster.names import Names
from serving.rollout.cluster.state import Book
from tests.crash.cluster_site import FileChannel, ship
from tests.crash.invariants import violations
from tests.crash.mutants import MUTANTS

ROOT = Path(__file__).resolve().parents[2]
Moment = Literal["before", "after", "stop"]
WRITES = ("POST", "PATCH", "PUT", "DELETE")


@dataclass(frozen=True)
class Order:
    """What a victim does, and where it ends: at its `write`-th write (from 1; 0: nowhere)."""

    kubeconfig: str
    namespace: str
    channel: str
    release: str
    strategy: str
    run_id: str
    fails: str = ""
    kind: Literal["rollout", "undo"] = "rollout"
    write: int = 0
    moment: Moment = "before"
    mutant: str = ""


class DeadlyApi(Api):
    """Counts writes, ends its own process at one of them, and checks the invariants after each."""

    order: Order
    checker: Api
    writes = 0

    def _json(self, verb: str, kind: str, name: str, *, query: Any = (), body: Any = None, named: str = "") -> Json:
        if verb not in WRITES or "/status" in name:
            return super()._json(verb, kind, name, query=query, body=body, named=named)
        self.writes += 1
        fatal = self.writes == self.order.write
        if fatal and self.order.moment == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if fatal and self.order.moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return super()._json(verb, kind, name, query=query, body=body, named=named)
        finally:
            if fatal and self.order.moment == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            # A save changes nothing that serves; the first one says whose rollout it is, the last one that it is over.
            if kind != "ConfigMap" or self.writes == 1 or '"phase": "aborted"' in str(body):
                self._check(f"{verb} {kind}/{named or name}")

    def _check(self, write: str) -> None:
        state = Book(self.checker, Names(namespace=self.namespace)).read()
        for violation in violations(self.checker, FileChannel(Path(self.order.channel)), state):
            with Path(f"{self.order.channel}.violations").open("a") as file:
                file.write(f"{self.order.run_id}, write {self.writes} ({write}): {violation}\n")


class NotingChannel(FileChannel):
    """Notes after which write something was published."""

    api: DeadlyApi

    def publish(self, release: str) -> None:
        super().publish(release)
        Path(f"{self.path}.published").write_text(str(self.api.writes))


def perform(order: Order) -> int:
    """Do what the order says; the exit code: 0 shipped, 1 the rollout went back, 5 a conflict, 9 anything else."""
    MUTANTS.get(order.mutant, lambda: None)()
    plain = connect(order.namespace, kubeconfig=Path(order.kubeconfig), patience=20)
    api = DeadlyApi(plain._client, order.namespace, patience=20)
    api.order, api.checker = order, plain
    channel = NotingChannel(Path(order.channel))
    channel.api = api
    try:
        ship(api, channel, order.release, order.strategy, run_id=order.run_id, fails=order.fails, kind=order.kind)
    except DualError as error:
        Path(f"{order.channel}.error").write_text(str(error))
        return 1 if isinstance(error, RolloutError) else error.exit_code
    finally:
        Path(f"{order.channel}.writes").write_text(str(api.writes))
    return 0


def main() -> None:
    """The zygote: forks a victim for each order, continues stopped ones, and says how each ended."""
    # Half a second that every victim would need after its fork.
    import kubernetes.client
    import kubernetes.config  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        if "continue" in request:
            pid = request["continue"]
            os.kill(pid, signal.SIGCONT)
        else:
            pid = os.fork()
            if not pid:
                _be_victim(Order(**request))
        status = os.waitpid(pid, os.WUNTRACED)[1]
        stopped = os.WIFSTOPPED(status)
        answer = {"pid": pid, "stopped": stopped, "code": None if stopped else os.waitstatus_to_exitcode(status)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _be_victim(order: Order) -> None:
    try:
        code = perform(order)
    except BaseException:
        traceback.print_exc()
        code = 9
    os._exit(code)


class Zygote:
    """Has everything imported; one victim at a time."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("w")
        command = [sys.executable, "-m", "tests.crash.victims"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, cwd=ROOT)

    def run(self, order: Order) -> dict[str, Any]:
        """How a victim ended: pid, stopped, code (-9: killed)."""
        return self._ask(asdict(order))

    def resume(self, pid: int) -> dict[str, Any]:
        """Let a stopped victim go on to its end."""
        return self._ask({"continue": pid})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(20)
        self._log.close()


class Zygotes:
    """Several, each lent to one case at a time."""

    def __init__(self, count: int, logs: Path) -> None:
        self.count = count
        self._idle: Queue[Zygote] = Queue()
        for number in range(count):
            self._idle.put(Zygote(logs / f"log-{number}"))

    @contextmanager
    def lent(self) -> Iterator[Zygote]:
        """One that nobody else has."""
        zygote = self._idle.get()
        try:
            yield zygote
        finally:
            self._idle.put(zygote)

    def close(self) -> None:
        """End them all."""
        for _ in range(self.count):
            self._idle.get().close()


if __name__ == "__main__":
    main()
