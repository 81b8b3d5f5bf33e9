"""`dual serve --store`: a server that follows what its store says should be served.

It enters itself in the store's address book, so that rollouts find it, and looks every second at `serving.rollout.local.desired`; files
are fetched, checked by sha256 and renamed into its own model folder before they are loaded.
"""

import asyncio
import logging
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path
from tensorflow_serving.config import model_server_config_pb2

from components.core.stores import Store, join, open_store
from serving.rollout.converge import converge
from serving.rollout.local import Desired, desired
from serving.rollout.servers import Server, ServerEntry
from serving.server.logs import configure_logging
from serving.server.options import Options
from serving.server.process import ModelServer, Ports

_LOG = logging.getLogger("serving.server")
_BOOK = "serving/servers"
_POLL_SECONDS = 1.0
_LOAD_SECONDS = 120.0


def serve_store(
    store_uri: str,
    *,
    rest_port: int = 8501,
    grpc_port: int = 8500,
    name: str = "classifier",
    host: str = "127.0.0.1",
    cache: Path | None = None,
    ready_file: Path | None = None,
    on_ready: Callable[[Ports], None] | None = None,
) -> None:
    """Serve the promoted release of a store as `name` (labels stable and canary) until SIGTERM or SIGINT; then drain and return.

    Ready means listening: before anything is promoted, status and predict answer 404. `cache` is where releases are unpacked. Raises
    `UsageError` for a bad store or a taken port.
    """
    configure_logging()
    store = open_store(store_uri)
    model_dir = _own_folder(cache or user_cache_path("dual-deploy") / "servers")
    options = Options(
        host=host,
        rest_port=rest_port,
        grpc_port=grpc_port,
        max_load_retries=0,
        ready_file=ready_file,
    )
    follower = Follower(store, model_dir, name)

    def ready(ports: Ports) -> None:
        follower.start(ports)
        if on_ready:
            on_ready(ports)

    try:
        asyncio.run(ModelServer(options).run(empty_config(name, model_dir), await_models=False, on_ready=ready))
    finally:
        follower.stop()
        shutil.rmtree(model_dir, ignore_errors=True)


class Follower:
    """The thread that keeps one server at the store's desired state, and its entry in the address book."""

    def __init__(self, store: Store, model_dir: Path, name: str) -> None:
        """Follow `store` for the server that loads `name` from `model_dir`."""
        self._store, self._model_dir, self._name = store, model_dir, name
        self._entry = join(_BOOK, f"{uuid.uuid4().hex[:12]}.json")
        self._stop = threading.Event()
        self._said = ""
        self._thread: threading.Thread | None = None

    def start(self, ports: Ports) -> None:
        """Enter the address book and follow."""
        entry = ServerEntry(
            id=Path(self._entry).stem,
            pid=ports.pid,
            host=ports.host,
            rest_port=ports.rest_port or 0,
            grpc_port=ports.grpc_port or 0,
            model_dir=str(self._model_dir),
            name=self._name,
        )
        self._store.put(self._entry, entry.model_dump_json(indent=1).encode())
        self._thread = threading.Thread(target=self._follow, args=(Server(entry),), name="follow", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop following and leave the address book."""
        self._stop.set()
        if self._thread:
            self._thread.join(2 * _POLL_SECONDS)
            self._store.delete(self._entry)

    def _follow(self, server: Server) -> None:
        while not self._stop.is_set():
            self._look(server)
            self._stop.wait(_POLL_SECONDS)
        server.close()

    def _look(self, server: Server) -> None:
        try:
            want = desired(self._store)
            converge(self._store, server, want, _LOAD_SECONDS)
            self._say(logging.INFO, _summary(want, self._store.uri))
        except Exception as error:
            # Whatever a store or a release does wrong, what is loaded goes on being served; the next look tries again.
            if not self._stop.is_set():
                self._say(logging.ERROR, f"can't follow the store, the models stay as they are: {error}")

    def _say(self, level: int, text: str) -> None:
        if text != self._said:
            _LOG.log(level, text)
            self._said = text


def empty_config(name: str, model_dir: Path) -> Any:
    """A ModelServerConfig of one model with no version to load yet."""
    config = model_server_config_pb2.ModelServerConfig()
    model = config.model_config_list.config.add(name=name, base_path=str(model_dir), model_platform="tensorflow")
    model.model_version_policy.specific.SetInParent()
    return config


def _summary(want: Desired, uri: str) -> str:
    if not want.loaded:
        return f"nothing is promoted in {uri} yet; waiting (ship a release with: dual run --data SOURCE --store {uri})"
    return "following the store: " + ", ".join(f"{label} is release {release}" for label, release in want.labels().items())


def _own_folder(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for folder in root.iterdir():
        pid = folder.name.partition("-")[0]
        if pid.isdigit() and not _is_alive(int(pid)):
            # The leavings of a server that was killed.
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=root))


def _is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        with suppress(PermissionError):
            os.kill(pid, 0)
        return True
    return False
