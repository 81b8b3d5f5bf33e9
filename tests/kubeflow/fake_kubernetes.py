"""As much of a Kubernetes API as a port-forward and a look at pods need: services, pods, events, logs, Argo's objects.

The framing of pods/portforward is that of kubelet's `v4.channel.k8s.io`: two channels a port, data and errors, each beginning with the
port's number.
"""

import contextlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

Json = dict[str, Any]
_PIECE = 65536


@dataclass
class FakeKubernetes:
    """Objects by kind (the plural) and the ports that pods listen at. `refused` names paths that are forbidden."""

    objects: dict[str, list[Json]] = field(default_factory=dict)
    ports: dict[tuple[str, int], int] = field(default_factory=dict)
    """(pod, port) → the port of this machine that stands for it."""
    logs: dict[tuple[str, str], str] = field(default_factory=dict)
    """(pod, container) → its log."""
    refused: str = "^$"
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, Json | str]:
        """(status, body) of a GET."""
        self.asked.append(path)
        if re.search(self.refused, path):
            return 403, _status(403, f'User "me" cannot get {path}')
        if match := re.fullmatch(r".*/pods/([^/]+)/log", path):
            text = self.logs.get((match[1], query.get("container", "")))
            return (200, _tail(text, query)) if text is not None else (404, _status(404, f'pods "{match[1]}" not found'))
        if match := re.fullmatch(r".*/namespaces/([^/]+)/([a-z]+)(?:/([^/]+))?", path):
            return self._objects(match[1], match[2], match[3], query)
        return 404, _status(404, "the server could not find the requested resource")

    def _objects(self, namespace: str, plural: str, name: str | None, query: dict[str, str]) -> tuple[int, Json | str]:
        found = [each for each in self.objects.get(plural, []) if each["metadata"].get("namespace", "kubeflow") == namespace]
        if name is not None:
            one = next((each for each in found if each["metadata"]["name"] == name), None)
            return (200, one) if one else (404, _status(404, f'{plural} "{name}" not found'))
        labels = dict(pair.split("=") for pair in filter(None, query.get("labelSelector", "").split(",")))
        fields = dict(pair.split("=") for pair in filter(None, query.get("fieldSelector", "").split(",")))
        found = [each for each in found if labels.items() <= (each["metadata"].get("labels") or {}).items()]
        if wanted := fields.get("involvedObject.name"):
            found = [each for each in found if each["involvedObject"]["name"] == wanted]
        return 200, {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": found}


def _status(code: int, message: str) -> Json:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}


def _tail(text: str, query: dict[str, str]) -> str:
    lines = text.splitlines(keepends=True)
    return "".join(lines[-int(query.get("tailLines", len(lines))) :])


@contextmanager
def kubernetes(fake: FakeKubernetes, kubeconfig: Path) -> Iterator[None]:
    """Serve it, and write a kubeconfig that leads there."""

    def respond(_: ServerConnection, request: Request) -> Response | None:
        parts = urlsplit(request.path)
        if "/portforward" in parts.path and not re.search(fake.refused, parts.path):
            pod = parts.path.split("/")[-2]
            return None if any(name == pod for name, _ in fake.ports) else _response(404, _status(404, f'pods "{pod}" not found'))
        return _response(*fake.answer(parts.path, dict(parse_qsl(parts.query))))

    def forward(connection: ServerConnection) -> None:
        assert connection.request is not None
        parts = urlsplit(connection.request.path)
        port = int(dict(parse_qsl(parts.query))["ports"])
        _forward(connection, port, fake.ports[parts.path.split("/")[-2], port])

    with serve(forward, "127.0.0.1", 0, process_request=respond, subprotocols=["v4.channel.k8s.io"], compression=None) as server:  # type: ignore[list-item]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        kubeconfig.write_text(yaml.safe_dump(_kubeconfig(f"http://127.0.0.1:{server.socket.getsockname()[1]}")))
        yield
        server.shutdown()


def _response(status: int, body: Json | str) -> Response:
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    kind = "text/plain" if isinstance(body, str) else "application/json"
    headers = Headers({"Content-Type": kind, "Content-Length": str(len(content)), "Connection": "close"})
    return Response(status, HTTPStatus(status).phrase, headers, content)


def _kubeconfig(server: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": server}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "me"}}],
        "users": [{"name": "me", "user": {}}],
    }


def _forward(connection: ServerConnection, port: int, local: int) -> None:
    for channel in (0, 1):
        connection.send(bytes([channel]) + port.to_bytes(2, "little"))
    try:
        near = socket.create_connection(("127.0.0.1", local))
    except OSError as error:
        connection.send(b"\x01" + f"an error occurred forwarding: {error}".encode())
        return
    threading.Thread(target=_pump, args=(near.recv, lambda data: connection.send(b"\x00" + data)), daemon=True).start()
    with near, contextlib.suppress(ConnectionClosed, OSError):
        for message in connection:
            assert isinstance(message, bytes)
            near.sendall(message[1:])


def _pump(receive: Callable[[int], bytes], send: Callable[[bytes], None]) -> None:
    with contextlib.suppress(ConnectionClosed, OSError):
        while piece := receive(_PIECE):
            send(piece)


def ready_pod(name: str, labels: dict[str, str], port: int = 8888) -> Json:
    """A pod that is ready, with a port named http."""
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"name": "main", "ports": [{"name": "http", "containerPort": port}]}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }


def api_service() -> Json:
    """The Service of the API server, as KFP's manifests have it."""
    ports = [{"name": "http", "port": 8888, "targetPort": "http"}, {"name": "grpc", "port": 8887, "targetPort": 8887}]
    return {"metadata": {"name": "ml-pipeline"}, "spec": {"selector": {"app": "ml-pipeline"}, "ports": ports}}
