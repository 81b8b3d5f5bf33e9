"""A server of one's own for the time of a check, on a folder that is gone afterwards."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.core.errors import RolloutError
from serving.rollout.servers import Server, ServerEntry

_LOG_TAIL = 2000
_STOP_SECONDS = 30.0
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


@contextmanager
def temporary_server(name: str, *, timeout: float) -> Iterator[Server]:
    """Run `python -m serving.server` without a model on free ports; ended at the end, also when this process is killed (Linux).

    Raises `RolloutError` with the tail of its log if it does not start within `timeout` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="dual-rollout-") as folder:
        root = Path(folder)
        (root / "models").mkdir()
        process = _start(root)
        try:
            server = Server(_await_ready(root, process, name, timeout))
            try:
                yield server
            finally:
                server.close()
        finally:
            _stop(process)


def _start(root: Path) -> subprocess.Popen[bytes]:
    # No model yet: the rollout loads them, so that a broken one is reported by the same path as on a running server.
    (root / "models.conf").write_text("model_config_list {}\n")
    flags = {
        "host": "127.0.0.1",
        "port": 0,
        "rest_api_port": 0,
        "model_config_file": root / "models.conf",
        "max_num_load_retries": 0,
        "file_system_poll_wait_seconds": 0,
        "drain_seconds": 2,
        "ready_file": root / "ready.json",
    }
    command = [sys.executable, "-m", "serving.server", *(f"--{key}={value}" for key, value in flags.items())]
    with (root / "log").open("wb") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_parent)  # noqa: PLW1509


def _die_with_parent() -> None:
    if sys.platform == "linux":
        import ctypes
        import signal

        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM)


def _await_ready(root: Path, process: subprocess.Popen[bytes], name: str, timeout: float) -> ServerEntry:
    ready, deadline = root / "ready.json", time.monotonic() + timeout
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            state = f"ended with code {process.returncode}" if process.poll() is not None else f"was not ready within {timeout:g} s"
            tail = (root / "log").read_text(errors="replace")[-_LOG_TAIL:]
            raise RolloutError(f"{state}; its log ends with:\n{tail}", where="the server for the check")
        time.sleep(0.05)
    found = json.loads(ready.read_text())
    ports = {key: found[key] for key in ("pid", "host", "rest_port", "grpc_port")}
    return ServerEntry(id="temporary", name=name, model_dir=str(root / "models"), **ports)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
