"""A child process that kills itself at one of its writes: for interpreters that a test starts for nothing else, because they fork."""

import os
import signal
import sys
from collections.abc import Callable

_WRITES = {"os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"}


def ends(kill_at: int, act: Callable[[], object]) -> int:
    """Run `act` in a fork that is killed before its write of that number (0: never), without output; its exit code, -9 if it was killed."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        _watch(kill_at)
        act()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _watch(kill_at: int) -> None:
    left = [kill_at]

    def count(event: str, arguments: tuple[object, ...]) -> None:
        if left[0] and _is_write(event, arguments):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def _is_write(event: str, arguments: tuple[object, ...]) -> bool:
    if event != "open":
        return event in _WRITES
    flags = arguments[2]
    return isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR) > 0
