"""A process under test: started, awaited, measured, and always ended by its own id."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from components.core.errors import DualError

_POLL = 0.05
TAIL_LINES = 30


class ChildError(DualError):
    """The process ended, or was not ready in time."""


class Child:
    """One Python module as a separate process, in a session of its own; its output goes to a log file.

    Its standard input is a pipe that closes when this process dies: a child that reads it can't outlive its parent.
    """

    def __init__(self, name: str, module: str, arguments: Sequence[str], log: Path, *, stop_seconds: float = 10.0) -> None:
        """Start `python -m module arguments…`; `name` is for messages, `stop_seconds` is how long `stop` waits before it kills."""
        self.name, self.log, self.began, self._stop_seconds = name, log, time.monotonic(), stop_seconds
        command = [sys.executable, "-m", module, *arguments]
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONUNBUFFERED": "1"}
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )

    def __enter__(self) -> "Child":
        """Use it in a `with` block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the process whatever happened."""
        self.stop()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def wait_for_file(self, path: Path, timeout: float) -> float:
        """Wait until the process has written `path`; the seconds since its start.

        Raises `ChildError` with the end of its log if it ends before, or takes longer than `timeout` seconds.
        """
        while not path.exists():
            if not self.is_alive():
                raise self._failed(f"ended with exit code {self._process.returncode} before it was ready")
            if time.monotonic() - self.began > timeout:
                raise self._failed(f"was not ready within {timeout:g} s")
            time.sleep(_POLL)
        return time.monotonic() - self.began

    def peak_memory_mb(self) -> float:
        """Most resident memory so far in MB (Linux), or the present one where the system does not say; NaN if neither is to be had."""
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
            kilobytes = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
        except (OSError, StopIteration):
            found = subprocess.run(["ps", "-o", "rss=", "-p", str(self.pid)], capture_output=True, text=True, check=False)
            kilobytes = found.stdout.strip() or "nan"
        return float(kilobytes) / 1024

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> int:
        """Ask the process to end, kill it if it does not; its exit code."""
        if self.is_alive():
            self._process.terminate()
            try:
                self._process.wait(self._stop_seconds)
            except subprocess.TimeoutExpired:
                # The session is the process' own: its children go with it.
                os.killpg(self.pid, signal.SIGKILL)
        if self._process.stdin:
            self._process.stdin.close()
        return self._process.wait()

    def _failed(self, what: str) -> ChildError:
        return ChildError(f"the {self.name} {what}", fix=f"The end of its log: {self.tail(5).rstrip('.')}")
