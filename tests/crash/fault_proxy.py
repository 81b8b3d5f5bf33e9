"""Between a rollout and the API server: refuses, cuts off, loses answers, keeps requests back, as networks and busy servers do."""

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self

from kubernetes import client
from urllib3.exceptions import HTTPError

from serving.rollout.cluster.api import Api

Fault = Literal["", "429", "500", "503", "403", "409", "410", "422", "dropped", "lost", "cut", "page", "late", "held", "expired"]
"""What happens to a request: an answer of that code, no connection, done but no answer, half an answer, a proxy's own page, done but
answered after the client's patience with one request, kept back until the test lets it through, or (a watch) a version that is too old."""
TIMEOUT = 0.5
_ANSWERS = {
    **{"429": "slow down", "500": "etcd leader changed", "503": "unavailable", "403": "not yours", "409": "changed", "422": "invalid"},
    "410": "The provided continue parameter is too old to display a consistent list result.",
}
_EXPIRED = b"""{"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
 "message": "too old resource version: 1 (99)", "reason": "Expired", "code": 410}}
""".replace(b"\n ", b" ")


@dataclass(frozen=True)
class Call:
    """One request that came in."""

    number: int
    """From 1, tries again counted."""
    verb: str
    path: str

    def is_write(self) -> bool:
        """Whether it changes something."""
        return self.verb != "GET"

    def is_watch(self) -> bool:
        """Whether it is answered piece by piece."""
        return "watch=true" in self.path


class FaultProxy:
    """A server on the loopback whose `fault` decides on each request."""

    def __init__(self, upstream: Api) -> None:
        """Forward to where `upstream` leads, with its credentials; nothing goes wrong yet."""
        self.fault: Callable[[Call], Fault] = lambda _: ""
        self.says: Callable[[Call], str | None] = lambda _: None
        """The text of an answer that the API server would have from a kubelet; None: it is the API server's own."""
        self.retry_after = "0"
        self.calls: list[Call] = []
        self.watching: list[socket.socket] = []
        """Connections on which watches are answered, or were."""
        self._host, self._pool = upstream._client.configuration.host, upstream._client.rest_client.pool_manager
        self._lock, self._open = threading.Lock(), threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def api(self, namespace: str, *, patience: float = 20.0) -> Api:
        """A client that comes through here."""
        configuration: Any = client.Configuration()
        configuration.host, configuration.retries = f"http://127.0.0.1:{self._server.server_port}", False
        return Api(client.ApiClient(configuration), namespace, timeout=TIMEOUT, patience=patience)

    def __enter__(self) -> Self:
        """Begin to serve."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let everything go that was held, and end."""
        self._open.set()
        self._server.shutdown()
        self._server.server_close()

    def let_through(self) -> None:
        """Forward what was kept back; returns when all of it was answered."""
        self._open.set()
        self._server.join_held()

    def note(self, verb: str, path: str) -> Call:
        """Count a request."""
        with self._lock:
            call = Call(len(self.calls) + 1, verb, path)
            self.calls.append(call)
        return call

    def forward(self, verb: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Ask the API server, over connections that stay open."""
        answer = self._pool.request(verb, self._host + path, body=body or None, headers=headers, retries=False)
        return answer.status, dict(answer.headers), answer.data

    def stream(self, path: str, headers: dict[str, str]) -> Iterator[bytes]:
        """A watch, as the API server tells it."""
        answer = self._pool.request("GET", self._host + path, headers=headers, retries=False, preload_content=False)
        # The API server may end first.
        with closing(answer), suppress(HTTPError):
            yield from answer.stream()

    def cut_watches(self) -> None:
        """Break every watch that goes on."""
        broken, self.watching = self.watching, []
        for connection in broken:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def wait_until_open(self) -> None:
        """Until the test lets requests through."""
        self._open.wait(60)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    proxy: FaultProxy

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._held = 0
        self._none_held = threading.Condition()

    def hold(self, change: int) -> None:
        """One more or less is held."""
        with self._none_held:
            self._held += change
            self._none_held.notify_all()

    def join_held(self) -> None:
        """Until none is held."""
        with self._none_held:
            self._none_held.wait_for(lambda: not self._held, timeout=20)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body go together: in two pieces they would wait 40 ms for each other.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def handle(self) -> None:
        """As always; that a client has gone is no news here."""
        with suppress(OSError):
            super().handle()

    def finish(self) -> None:
        """As always; what is left to say to a client that has gone is not said."""
        with suppress(OSError):
            super().finish()

    def _serve(self) -> None:  # noqa: PLR0911 - as many ways to answer as there are faults
        proxy = self.server.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        call = proxy.note(self.command, self.path)
        fault = proxy.fault(call)
        if fault in _ANSWERS:
            return self._refuse(fault)
        if fault == "dropped":
            return self._hang_up()
        if fault == "page":
            return self._answer(200, {"Content-Type": "text/html"}, b"<html>Please log in</html>")
        if not fault and (text := proxy.says(call)) is not None:
            return self._answer(200, {"Content-Type": "text/plain"}, text.encode())
        if fault == "held":
            self.server.hold(1)
            proxy.wait_until_open()
        kept = {key: value for key, value in self.headers.items() if key in ("Content-Type", "Accept")}
        if call.is_watch():
            return self._stream(
                {"expired": [_EXPIRED], "cut": [_EXPIRED[:40]]}.get(fault) or proxy.stream(self.path, kept), whole=fault != "cut"
            )
        status, headers, answer = proxy.forward(self.command, self.path, kept, body)
        if fault == "held":
            self.server.hold(-1)
        if fault == "late":
            time.sleep(1.5 * TIMEOUT)
        if fault in ("lost", "held"):
            return self._hang_up()
        return self._answer(status, headers, answer, sent=len(answer) // 2 if fault == "cut" else None)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _stream(self, pieces: Iterable[bytes], *, whole: bool) -> None:
        self.server.proxy.watching.append(self.connection)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        for piece in pieces:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
        if not whole:
            return self._hang_up()
        self.wfile.write(b"0\r\n\r\n")
        return self.wfile.flush()

    def _refuse(self, fault: str) -> None:
        headers = {"Retry-After": self.server.proxy.retry_after} if fault in ("429", "503") else {}
        status = b'{"kind": "Status", "message": "%s"}' % _ANSWERS[fault].encode()
        self._answer(int(fault), {**headers, "Content-Type": "application/json"}, status)

    def _answer(self, status: int, headers: dict[str, str], body: bytes, *, sent: int | None = None) -> None:
        self.send_response(status)
        for key, value in headers.items():
            if key.lower() in ("content-type", "retry-after"):
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:sent])
        self.wfile.flush()
        if sent is not None:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
