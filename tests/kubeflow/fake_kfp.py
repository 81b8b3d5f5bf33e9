"""A Kubeflow Pipelines API server in this process: the documented REST paths of v2beta1, and what stands in front of it."""

import email.parser
import email.policy
import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.kubeflow.fake_state import State, recurring_view
from tests.kubeflow.wire_types import Refusal, write

API = "/apis/v2beta1"
_CODES = {400: 3, 404: 5, 409: 6, 401: 16, 403: 7, 503: 14, 500: 13}


@dataclass(frozen=True)
class Request:
    """What a client sent."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What it gets."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


def as_json(value: Any, status: int = 200) -> Answer:
    """JSON."""
    return Answer(status, json.dumps(value).encode())


def as_page(html: str, status: int = 200) -> Answer:
    """A web page."""
    return Answer(status, html.encode(), {"Content-Type": "text/html"})


def redirect(location: str, **headers: str) -> Answer:
    """302."""
    return Answer(302, b"", {"Location": location, **headers})


Guard = Callable[[Request], Answer | None]
"""What stands in front: an answer instead of the API's, or None to let the request through."""


@dataclass
class FakeKfp:
    """The server. `prefix` is the path that Kubeflow's dashboard puts before the API; `requests` are those that reached it."""

    state: State = field(default_factory=State)
    guard: Guard = lambda _: None
    prefix: str = ""
    requests: list[Request] = field(default_factory=list)
    url: str = ""

    def answer(self, request: Request) -> Answer:
        """The guard's answer, the API's, or its refusal."""
        self.requests.append(request)
        if (guarded := self.guard(request)) is not None:
            return guarded
        if not request.path.startswith(self.prefix + API):
            return as_page("<html><title>Kubeflow Pipelines</title></html>") if request.method == "GET" else as_json({}, 404)
        try:
            with self.state.lock:
                return as_json(self._route(request, request.path.removeprefix(self.prefix + API)))
        except Refusal as refusal:
            return as_json(_refused(refusal, request.path), refusal.status)

    def calls(self, method: str, pattern: str) -> list[Request]:
        """Requests whose path (without the prefix) matches."""
        return [each for each in self.requests if each.method == method and re.search(pattern, each.path)]

    def _route(self, request: Request, path: str) -> dict[str, Any]:
        for method, pattern, act in _ROUTES:
            if request.method == method and (match := re.fullmatch(pattern, path)):
                return act(self.state, request, *map(unquote, match.groups()))
        raise Refusal(404, "Not Found")


def _body(request: Request) -> Any:
    try:
        return json.loads(request.body)
    except ValueError as error:
        raise Refusal(400, f"proto: syntax error: {error}") from None


def _uploaded(request: Request) -> tuple[str, bytes]:
    """(name, content) of the file in a multipart form, in its field `uploadfile`."""
    head = f"Content-Type: {request.headers.get('Content-Type', '')}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + request.body)
    for part in message.iter_parts() if message.is_multipart() else ():
        if part.get_param("name", header="content-disposition") == "uploadfile":
            return str(part.get_filename()), bytes(part.get_payload(decode=True) or b"")
    raise Refusal(400, "Failed to read pipeline from file")


def _refused(refusal: Refusal, path: str) -> dict[str, Any]:
    if "/upload" in path:
        # The upload server is no gRPC gateway and has an error format of its own.
        return {"error_message": refusal.message, "error_details": refusal.message}
    code = _CODES.get(refusal.status, 2)
    return {"error": refusal.message, "code": code, "message": refusal.message, "details": []}


def _health(state: State, _: Request) -> dict[str, Any]:
    return write("V2beta1GetHealthzResponse", multi_user=state.multi_user, pipeline_store="database")


_ID = r"([^/:]+)"
_ROUTES: list[tuple[str, str, Callable[..., dict[str, Any]]]] = [
    ("GET", "/healthz", _health),
    ("POST", "/pipelines", lambda state, request: state.create_pipeline(_body(request))),
    ("POST", "/pipelines/upload_version", lambda state, request: state.upload_version(request.query, *_uploaded(request))),
    ("GET", f"/pipelines/names/{_ID}", lambda state, request, name: state.pipeline_by_name(name, request.query.get("namespace", ""))),
    ("GET", f"/pipelines/{_ID}/versions", lambda state, request, pipeline: state.list_versions(pipeline, request.query)),
    ("GET", f"/pipelines/{_ID}/versions/{_ID}", lambda state, _, pipeline, version: state.get_version(pipeline, version)),
    ("POST", "/experiments", lambda state, request: state.create_experiment(_body(request))),
    ("GET", "/experiments", lambda state, request: state.list_experiments(request.query)),
    ("POST", "/runs", lambda state, request: state.create_run(_body(request))),
    ("GET", "/runs", lambda state, request: state.list_runs(request.query)),
    ("GET", f"/runs/{_ID}", lambda state, _, run: state.get_run(run)),
    ("POST", f"/runs/{_ID}:terminate", lambda state, _, run: state.terminate(run)),
    ("POST", f"/runs/{_ID}:retry", lambda state, _, run: state.retry(run)),
    ("POST", f"/runs/{_ID}:archive", lambda state, _, run: state.archive(run, back=False)),
    ("POST", f"/runs/{_ID}:unarchive", lambda state, _, run: state.archive(run, back=True)),
    ("POST", "/recurringruns", lambda state, request: state.create_recurring(_body(request))),
    ("GET", "/recurringruns", lambda state, request: state.list_recurring(request.query)),
    ("GET", f"/recurringruns/{_ID}", lambda state, _, run: recurring_view(state.recurring_run(run))),
    ("DELETE", f"/recurringruns/{_ID}", lambda state, _, run: state.delete_recurring(run)),
    ("POST", f"/recurringruns/{_ID}:enable", lambda state, _, run: state.enable_recurring(run, enabled=True)),
    ("POST", f"/recurringruns/{_ID}:disable", lambda state, _, run: state.enable_recurring(run, enabled=False)),
]


@contextmanager
def serving(answer: Callable[[Request], Answer], tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[str]:
    """An HTTP server that answers so; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # One packet for head and body: two would wait for each other (Nagle, delayed acknowledgements), 40 ms an answer.
        wbufsize = -1

        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            found = answer(Request(self.command, unquote(parts.path), query, dict(self.headers.items()), body))
            self.send_response(found.status)
            for name, value in {**found.headers, "Content-Length": str(len(found.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(found.body)
            self.wfile.flush()

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer((host, 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"{'https' if tls else 'http'}://{host}:{server.server_port}"
    server.shutdown()
    server.server_close()
