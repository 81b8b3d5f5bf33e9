"""Starting the page's server, and ending it."""

import signal
import socket
from collections.abc import Callable
from contextlib import closing

import uvicorn

from components.core.errors import UsageError
from serving.web.server import Web, make_web


def serve_web(web: Web, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, in the main thread; `on_ready` gets the page's address. `UsageError` if the port can't be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise UsageError(
                f"can't listen there ({error.strerror})", where=f"{host}:{port}", fix="Choose another --host or --port"
            ) from None
        # Whoever reads the address may come at once; until uvicorn takes over they wait in the queue instead of being refused.
        listener.listen(128)
        found = listener.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        config = uvicorn.Config(make_web(web), log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=3)
        server = uvicorn.Server(config)
        # uvicorn drains on these two, and then raises them again for whoever was there before it: nobody, here.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        on_ready(f"http://{shown}:{found}/")
        server.run(sockets=[listener])
