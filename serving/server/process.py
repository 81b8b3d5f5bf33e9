"""The server process: both ports, readiness, signals, and a drain before the end."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvicorn

from components.core.errors import DualError, UsageError
from serving.server.catalog import Catalog
from serving.server.metrics import Metrics
from serving.server.options import Options
from serving.server.rest import make_app
from serving.server.rpc import make_server, set_serving
from serving.server.service import Service, product
from serving.server.status import Refusal

_LOG = logging.getLogger("serving.server")
_HEALTH_SECONDS = 0.2


@dataclass(frozen=True)
class Ports:
    """Where a server listens; None for a protocol that is switched off."""

    pid: int
    host: str
    rest_port: int | None
    grpc_port: int | None


class ModelServer:
    """One server of both protocols over a catalog of models."""

    def __init__(self, options: Options) -> None:
        """Make the parts; nothing listens and nothing loads before `run`."""
        self.options = options
        self.metrics = Metrics()
        self.catalog = Catalog(options, self.metrics)
        self._service = Service(options, self.catalog, self.metrics)
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """Ask the server to drain and end; may be called from any thread."""
        if self._loop:
            self._loop.call_soon_threadsafe(self._stop.set)

    async def run(self, config: Any = None, *, await_models: bool = True, on_ready: Callable[[Ports], None] | None = None) -> None:
        """Serve `config` (a ModelServerConfig) until SIGTERM, SIGINT or `stop`; then drain and return.

        With `await_models` the server is ready when each model has an AVAILABLE version, else as soon as it listens. Raises
        `UsageError` for a bad config or a taken port, and `DualError` when a model can't be loaded at the start.
        """
        self._loop = asyncio.get_running_loop()
        if self.options.ready_file:
            self.options.ready_file.unlink(missing_ok=True)
        if config is not None:
            self._configure(config)
        http, http_task, rest_port = await self._listen_rest()
        grpc_server, checks, grpc_port = await self._listen_grpc()
        ports = Ports(os.getpid(), self.options.host, rest_port, grpc_port)
        _LOG.info("%s listens at %s, REST port %s, gRPC port %s", product(), ports.host, rest_port, grpc_port)
        self._handle_signals(self._loop)
        self.catalog.start()
        health_task = asyncio.create_task(self._report_health(checks))
        try:
            if await self._started(await_models):
                self._announce(ports, on_ready)
                await self._stop.wait()
        finally:
            health_task.cancel()
            await self._drain(http, http_task, grpc_server, checks)

    def _configure(self, config: Any) -> None:
        try:
            self.catalog.configure(config)
        except Refusal as refusal:
            raise UsageError(f"Failed to start server. Error: {refusal.message}", where="model config", fix="Correct it") from None

    async def _listen_rest(self) -> tuple[Any, Any, int | None]:
        if self.options.rest_port is None:
            return None, None, None
        bound = _bind(self.options.host, self.options.rest_port)
        config = uvicorn.Config(
            make_app(self._service),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=max(1, round(self.options.drain_seconds)),
        )
        http = _Http(config)
        task = asyncio.create_task(http.serve(sockets=[bound]))
        while not http.started and not task.done():
            await asyncio.sleep(0.01)
        return http, task, bound.getsockname()[1]

    async def _listen_grpc(self) -> tuple[Any, Any, int | None]:
        if self.options.grpc_port is None:
            return None, None, None
        server, checks = make_server(self._service)
        host = f"[{self.options.host}]" if ":" in self.options.host else self.options.host
        try:
            port = server.add_insecure_port(f"{host}:{self.options.grpc_port}")
        except RuntimeError:
            raise _taken(self.options.host, self.options.grpc_port, "--port") from None
        await server.start()
        return server, checks, port

    def _handle_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            # Only the main thread may handle signals; elsewhere `stop` is the way out.
            with contextlib.suppress(ValueError, RuntimeError):
                loop.add_signal_handler(number, self._stop.set)

    async def _started(self, await_models: bool) -> bool:
        """Whether the server may announce itself; False if it was stopped before."""
        if not await_models:
            return True
        loading = asyncio.ensure_future(asyncio.to_thread(self.catalog.await_models, self.catalog.names()))
        stopped = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({loading, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not loading.done():
            loading.add_done_callback(lambda task: task.exception())
            return False
        try:
            loading.result()
        except Refusal as refusal:
            raise DualError(
                f"Failed to start server. Error: {refusal.code.name}: {refusal.message}", fix="See the log lines above for the model"
            ) from None
        return True

    def _announce(self, ports: Ports, on_ready: Callable[[Ports], None] | None) -> None:
        if self.options.ready_file:
            write_atomically(self.options.ready_file, json.dumps(asdict(ports)))
        if on_ready:
            on_ready(ports)

    async def _report_health(self, checks: Any) -> None:
        before = None
        while checks is not None:
            serving = self.catalog.is_serving()
            if serving != before:
                await set_serving(checks, serving)
                before = serving
            await asyncio.sleep(_HEALTH_SECONDS)

    async def _drain(self, http: Any, http_task: Any, grpc_server: Any, checks: Any) -> None:
        _LOG.info("draining: no new requests, %d in progress", self._service.in_flight)
        if checks is not None:
            await set_serving(checks, False)
        if http:
            http.should_exit = True
        if grpc_server:
            await grpc_server.stop(self.options.drain_seconds)
        if http_task:
            await http_task
        await asyncio.to_thread(self.catalog.stop)
        _LOG.info("stopped")


class _Http(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `ModelServer`, which drains both protocols."""
        yield


def write_atomically(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_text(text)
    temporary.replace(path)


def _bind(host: str, port: int) -> socket.socket:
    # With the protocol named, asyncio sets TCP_NODELAY on accepted connections; without it each answer waits 40 ms for an acknowledgement.
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise _taken(host, port, "--rest_api_port") from None
    return bound


def _taken(host: str, port: int, flag: str) -> UsageError:
    return UsageError(f"can't listen at {host}:{port}", where=flag, fix="Stop what listens there, or give another port (0: any free one)")
