"""The server inside the test's own process: no second TensorFlow to import."""

import asyncio
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from serving.client.remote import RemoteModel
from serving.server.config import single_model
from serving.server.options import Options
from serving.server.process import ModelServer, Ports


class RunningServer:
    """A `ModelServer` in a thread; `with` stops it."""

    def __init__(self, config: Any, options: Options | None = None, *, await_models: bool = True) -> None:
        """Start, and wait until it is ready; an error at the start is raised here."""
        self.server = ModelServer(options or Options(poll_seconds=0.1, max_load_retries=0))
        self.error: BaseException | None = None
        self._ready = threading.Event()
        self._ports: Ports | None = None
        self._thread = threading.Thread(target=self._run, args=(config, await_models), daemon=True)
        self._thread.start()
        assert self._ready.wait(60)
        if self.error:
            raise self.error

    def _run(self, config: Any, await_models: bool) -> None:
        try:
            asyncio.run(self.server.run(config, await_models=await_models, on_ready=self._announced))
        except BaseException as error:
            self.error = error
        self._ready.set()

    def _announced(self, ports: Ports) -> None:
        self._ports = ports
        self._ready.set()

    @property
    def ports(self) -> Ports:
        assert self._ports
        return self._ports

    def client(self, name: str = "tiny", timeout: float = 30.0) -> RemoteModel:
        """A client of one of its models."""
        return RemoteModel(self.ports.host, self.ports.rest_port or 0, self.ports.grpc_port or 0, name, timeout)

    def slow_down(self, seconds: float, name: str = "tiny") -> None:
        """Make every run of the loaded version take so much longer."""
        with self.server.catalog.use(name) as loaded:
            run = loaded.servable.run

            def slow(*arguments: Any) -> dict[str, Any]:
                time.sleep(seconds)
                return run(*arguments)

            loaded.servable.run = slow

    def stop(self) -> None:
        """Drain, and wait for the end."""
        self.server.stop()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def __enter__(self) -> "RunningServer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def tiny_config(base: Path) -> Any:
    """One model `tiny`, its latest version."""
    return single_model("tiny", str(base))
