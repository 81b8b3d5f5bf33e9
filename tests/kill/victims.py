"""Processes that are killed by SIGKILL at a chosen write, and what they do until then. No TensorFlow: they are forked in milliseconds."""

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from components.assemble_release.assemble import assemble
from components.core.errors import StaleError
from components.core.record import StepRecord
from components.core.stores.local import LocalStore
from components.publish_mobile.garbage import Window, collect_garbage
from components.publish_mobile.publication import publish_release, undo_publication
from components.publish_mobile.publish import publish
from components.publish_mobile.steer import widen
from components.roll_out_cloud.roll_out import roll_out
from serving.rollout.undo import undo_release
from tests.release_pieces import Artifacts, record_of

Moment = Literal["before", "torn", "after"]
ROOT = Path(__file__).resolve().parents[2]
MOMENTS: tuple[Moment, Moment, Moment] = ("before", "torn", "after")
SETTINGS = json.dumps(
    {"name": "flowers", "roll_out_cloud": {"requests": 4, "load_timeout": 60, "max_p99_ms": 20_000, "max_p99_ratio": 1000}}
)


@dataclass
class Kill:
    """When to die: at the `write`-th write (from 1), before it, with its temporary file half-way, or after it."""

    write: int
    moment: Moment


class DeadlyStore(LocalStore):
    """A local store that counts its writes and kills its own process at one of them."""

    def __init__(self, root: Path, kill: Kill | None) -> None:
        super().__init__(root)
        self.kill, self.writes, self.depth = kill, 0, 0

    def put(self, name: str, data: bytes) -> None:
        self._deadly(lambda: super(DeadlyStore, self).put(name, data))

    def put_if_absent(self, name: str, data: bytes) -> bool:
        return self._deadly(lambda: super(DeadlyStore, self).put_if_absent(name, data))

    def swap(self, name: str, data: bytes, generation: str | None) -> str:
        return self._deadly(lambda: super(DeadlyStore, self).swap(name, data, generation))

    def delete(self, name: str) -> None:
        self._deadly(lambda: super(DeadlyStore, self).delete(name))

    def put_file(self, name: str, path: Path) -> None:
        self._deadly(lambda: super(DeadlyStore, self).put_file(name, path))

    def _deadly(self, write: Callable[[], Any]) -> Any:
        # A swap writes through put: that is one write.
        if self.depth or self.kill is None:
            return write()
        self.writes += 1
        self.depth += 1
        try:
            return self._at(self.kill, write) if self.writes == self.kill.write else write()
        finally:
            self.depth -= 1

    def _at(self, kill: Kill, write: Callable[[], Any]) -> Any:
        if kill.moment == "torn":
            os.fsync = _die
        if kill.moment != "before":
            write()
        return _die()


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


Job = Callable[[LocalStore, Sequence[str]], object]


def assemble_job(store: LocalStore, arguments: Sequence[str]) -> object:
    """assemble_release on a folder of artifacts."""
    record = record_of(store, "assemble_release", arguments[1])
    return assemble(record, settings="{}", inputs=Artifacts(Path(arguments[0])).inputs())


def publish_job(store: LocalStore, arguments: Sequence[str]) -> object:
    """The writes of a publication."""
    return publish_release(store, arguments[0])


def undo_job(store: LocalStore, arguments: Sequence[str]) -> object:
    """The writes of an undo; done already if the channel names the wanted release."""
    from components.core.channel import read_channel

    found = read_channel(store)
    return None if found and found[0].release == arguments[0] else undo_publication(store, "killed")


def ship_job(store: LocalStore, arguments: Sequence[str]) -> object:
    """roll_out_cloud and publish_mobile of a run."""
    release, run_id = arguments
    roll_out(_record(store, "roll_out_cloud", run_id), release=release, settings=SETTINGS)
    return publish(_record(store, "publish_mobile", run_id), release=release, settings=SETTINGS)


def start_job(store: LocalStore, arguments: Sequence[str]) -> object:
    """The writes of a publication to a share of the devices."""
    return publish_release(store, arguments[0], basis_points=1000)


def widen_job(store: LocalStore, arguments: Sequence[str]) -> object:
    """The writes of a wider share; done already if it is that wide."""
    from components.core.channel import read_channel

    found = read_channel(store)
    points = int(arguments[0])
    return None if found and found[0].staging.basis_points >= points else widen(store, points)


def collect_job(store: LocalStore, arguments: Sequence[str]) -> object:
    """A collection of garbage with a lease of some seconds; whoever died before is taken for dead after that."""
    return collect_garbage(store, Window(publications=1, days=0.0), lease=float(arguments[0]))


def collect_often_job(store: LocalStore, arguments: Sequence[str]) -> object:
    """One collection after the other until a file appears."""
    while not Path(arguments[0]).exists():
        collect_garbage(store, Window(publications=1, days=0.0))
    return None


def publish_often_job(store: LocalStore, arguments: Sequence[str]) -> object:
    """Publish releases in turn, so many times each; a race that is lost is run again, as a person would."""
    rounds, *releases = arguments
    for number in range(int(rounds) * len(releases)):
        _until_won(store, releases[number % len(releases)])
    return None


def publish_until_won_job(store: LocalStore, arguments: Sequence[str]) -> object:
    """Publish one release in the face of others."""
    return _until_won(store, arguments[0])


def update_device_job(store: LocalStore, arguments: Sequence[str]) -> object:
    """A device's update, killed before or after the given one of its flushes and renames (0: not at all)."""
    from components.core.keyring import read_keyring
    from serving.client.device import Device
    from serving.client.trust import Trust

    folder, keyring, number, moment = arguments
    _die_at(int(number), moment)
    return Device(Path(folder), store, Trust(read_keyring(Path(keyring)))).update()


def _die_at(number: int, moment: str) -> None:
    count = 0

    def deadly(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count == number and moment == "before":
                _die()
            result = real(*arguments)
            if count == number:
                _die()
            return result

        return call

    os.fsync, os.replace = deadly(os.fsync), deadly(os.replace)


def _until_won(store: LocalStore, release: str) -> None:
    while True:
        try:
            publish_release(store, release)
        except StaleError:
            continue
        return


def undo_servers_job(store: LocalStore, arguments: Sequence[str]) -> object:
    """An undo with servers; done already if the channel names the wanted release."""
    from components.core.channel import read_channel

    found = read_channel(store)
    return None if found and found[0].release == arguments[0] else undo_release(store, "killed")


def _record(store: LocalStore, step: str, run_id: str) -> StepRecord:
    return record_of(store, step, run_id)


def main() -> None:
    """The zygote: has everything imported, forks a victim for each line on stdin, and answers with its exit code."""
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if not pid:
            _be_victim(order)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        sys.stdout.write(f"{code}\n")
        sys.stdout.flush()


def _be_victim(order: dict[str, Any]) -> None:
    kill = Kill(**order["kill"]) if order["kill"] else None
    os.dup2(2, 1)
    try:
        globals()[order["job"]](DeadlyStore(Path(order["root"]), kill), order["arguments"])
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


class Zygote:
    """A process from which victims are forked in milliseconds; one at a time."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.kill.victims"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def run(self, job: Job, root: Path, kill: Kill | None, *arguments: str) -> int:
        """Run a job in a process of its own; its exit code (-9: it was killed)."""
        order = {"job": job.__name__, "root": str(root), "kill": asdict(kill) if kill else None, "arguments": arguments}
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)


if __name__ == "__main__":
    # What the jobs import lazily is imported once, before the forks.
    import ai_edge_litert.interpreter  # noqa: F401
    import grpc  # noqa: F401
    import jinja2  # noqa: F401
    import matplotlib.figure  # noqa: F401

    import components.report.page  # noqa: F401

    main()
