"""A page with its server, a store with signed releases, and a cloud whose answers a test decides."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from serving.web.server import Web, make_web
from tests.client.device_site import Site
from tests.rollout.web import Asked, Reply, WebServer, reply

GOOD = {"predictions": [{"label": "tulips", "score": 0.97, "probabilities": [0.0, 0.03, 0.97]}]}


@contextmanager
def running(web: Web) -> Iterator[str]:
    """The page's server in a thread; its address without a slash at the end."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(make_web(web), log_level="warning", access_log=False, timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


@dataclass
class Cloud:
    """TF Serving's `:predict`, as a test wants it."""

    answer: Callable[[Asked], Reply] = field(default=lambda _: reply(GOOD))

    @contextmanager
    def serve(self) -> Iterator[WebServer]:
        with WebServer(self.answer) as server:
            yield server


@dataclass
class Seen:
    """What a browser page asked for and complained about."""

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


def web_of(site: Site, vendor: Path, server: str = "", **more: object) -> Web:
    """The page of a site; it trusts the site's key, and is patient where a test does not say otherwise."""
    given: dict[str, object] = {"timeout": 30.0, **more}
    return Web(store=site.store, keyring=site.trust.keyring, vendor=vendor, model="classifier", server=server, **given)  # type: ignore[arg-type]


def payload(asked: Asked) -> str:
    """The image that was asked about, in base64."""
    return json.loads(asked.body)["instances"][0]["b64"]
