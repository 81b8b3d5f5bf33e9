"""A kubelet for the pods of infra checks on an API server that has none.

It binds the pod, does what the pod's init container would do (`serving.fetch` with the pod's own variables), runs our server with the
pod's own flags in this process, writes the pod's status, serves its logs to the API server, and lets go of it when it is deleted.
"""

import logging
import re
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from components.core.errors import DualError, MissingObjectError
from serving.fetch.order import read_order
from serving.fetch.stage import Patience, stage
from serving.rollout.cluster.api import Api, ChangedError
from serving.server.__main__ import _options, _parser
from serving.server.config import single_model
from tests.cluster.conftest import Json
from tests.serving.harness import RunningServer

NODE = "pretended"
SELECTOR = "app.kubernetes.io/component=infra-check"
_LOGGER = logging.getLogger("serving.server")
Behave = Callable[[Json], Json | None]


class Kubelet(threading.Thread):
    """The only node. `behave` may give a pod a status of its own instead of a running server."""

    def __init__(self, api: Api, pki: Path, work: Path, *, store: str, address: str = "127.0.0.1", behave: Behave = lambda _: None) -> None:
        super().__init__(daemon=True)
        self._api, self._work, self._behave, self._ended = api, work, behave, threading.Event()
        self._store, self.address = store, address
        self._servers: dict[str, RunningServer] = {}
        self._logs = _log_server(pki, work / "logs")
        self.pods: dict[str, Json] = {}
        """Every pod that was ever bound, by name, as it was made."""
        self.deleted: list[str] = []
        self.peak = "peak: 204800 kB, server\n"
        """What the container beside the server prints."""

    def __enter__(self) -> "Kubelet":
        (self._work / "logs").mkdir(parents=True, exist_ok=True)
        addresses = [{"type": "InternalIP", "address": "127.0.0.1"}]
        status = {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": self._logs.server_address[1]}}}
        call(self._api, "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}, "status": status})
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()
        self._look()
        for name in [*self._servers]:
            self.kill(name)
        self._logs.shutdown()
        self._logs.server_close()
        call(self._api, f"/api/v1/nodes/{NODE}", verb="DELETE")

    def run(self) -> None:
        """Look at the pods until the end."""
        while not self._ended.wait(0.05):
            self._look()

    def _look(self) -> None:
        for pod in list(self._api.list("Pod", SELECTOR)):
            try:
                self._see(pod)
            except (MissingObjectError, ChangedError):
                continue

    def kill(self, name: str) -> None:
        """End the server of a pod; its status stays as it is."""
        if server := self._servers.pop(name, None):
            server.stop()

    def patch(self, name: str, status: Json) -> None:
        """Write a pod's status."""
        self._api.patch("Pod", f"{name}/status", [{"op": "add", "path": "/status", "value": status}])

    def _see(self, pod: Json) -> None:
        name = pod["metadata"]["name"]
        if pod["metadata"].get("deletionTimestamp"):
            self.kill(name)
            self._api._json("DELETE", "Pod", name, body={"gracePeriodSeconds": 0})
            self.deleted.append(name)
        elif not pod["spec"].get("nodeName"):
            self.pods[name] = pod
            binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": NODE}}
            self._api._json("POST", "Pod", f"{name}/binding", body=binding)
        elif not pod["status"].get("startTime"):
            self.patch(name, self._behave(pod) or self._run(pod))

    def _run(self, pod: Json) -> Json:
        spec, name = pod["spec"], pod["metadata"]["name"]
        (fetch,), server = spec["initContainers"], spec["containers"][0]
        log = self._work / "logs" / name
        log.mkdir(parents=True, exist_ok=True)
        (log / "peak").write_text(self.peak)
        variables = {each["name"]: each.get("value", "") for each in fetch["env"]} | {"DUAL_MODEL_DIR": str(self._work / name)}
        with (log / "fetch").open("w") as said:
            try:
                # What a mount would bring: the template's own store is a folder of the pod.
                order = read_order({"DUAL_STORE": self._store} | {key: value for key, value in variables.items() if value})
                stage(order, lambda text: print(text, file=said, flush=True), Patience(1))
            except DualError as error:
                print(f"error: {error}", file=said)
                return failed("fetch", error.exit_code)
        return self._serve(server, name, log / server["name"])

    def _serve(self, server: Json, name: str, log: Path) -> Json:
        folder = log.parent / "monitoring.config"
        folder.write_text('prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }')
        flags = [f"--monitoring_config_file={folder}" if "monitoring" in flag else flag for flag in server["args"]]
        parsed = _parser().parse_args([*flags, f"--host={self.address}"])
        began, handler = datetime.now(UTC), logging.FileHandler(log)
        _LOGGER.addHandler(handler)
        _LOGGER.setLevel(logging.INFO)
        try:
            self._servers[name] = RunningServer(single_model(parsed.model_name, str(self._work / name)), _options(parsed))
        except DualError as error:
            log.write_text(f"{log.read_text()}error: {error}\n")
            return failed("server", error.exit_code)
        finally:
            _LOGGER.removeHandler(handler)
            handler.close()
        return ready(self.address, began, watched=self.peak.startswith("peak"))


def ready(address: str, began: datetime, *, watched: bool) -> Json:
    """The status of a pod whose server is ready, as a kubelet writes it; the container beside it runs or has failed."""
    now, since = (each.isoformat(timespec="seconds").replace("+00:00", "Z") for each in (datetime.now(UTC), began))
    running = {"ready": True, "restartCount": 0, "image": "x", "imageID": "sha256:abc", "state": {"running": {"startedAt": since}}}
    crashed = status("peak", {"terminated": {"exitCode": 1, "reason": "Error"}})
    return {
        "phase": "Running",
        "startTime": since,
        "podIP": address,
        "conditions": [
            {"type": "Ready", "status": str(watched), "lastTransitionTime": now},
            {"type": "ContainersReady", "status": str(watched), "lastTransitionTime": now},
        ],
        "initContainerStatuses": [status("fetch", {"terminated": {"exitCode": 0, "reason": "Completed"}})],
        "containerStatuses": [{"name": "server", **running}, {"name": "peak", **running} if watched else crashed],
    }


def failed(container: str, code: int, reason: str = "Error", *, message: str = "") -> Json:
    """The status of a pod in which a container ended."""
    ended = {"terminated": {"exitCode": code, "reason": reason, "message": message}}
    key = "initContainerStatuses" if container == "fetch" else "containerStatuses"
    return {"phase": "Failed", "startTime": _now(), key: [status(container, ended)]}


def pending() -> Json:
    """The status of a pod that a node has taken, and nothing more."""
    return {"phase": "Pending", "startTime": _now()}


def waiting(container: str, reason: str, message: str) -> Json:
    """The status of a pod in which a container can't start."""
    return {
        "phase": "Pending",
        "startTime": _now(),
        "containerStatuses": [status(container, {"waiting": {"reason": reason, "message": message}})],
    }


def status(container: str, state: Json) -> Json:
    """One container's status."""
    return {"name": container, "ready": False, "restartCount": 0, "image": "x", "imageID": "", "state": state}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def call(api: Api, path: str, body: Json | None = None, verb: str = "POST") -> None:
    """A call of what `Api` does not know."""
    api._client.call_api(path, verb, body=body, _preload_content=False, auth_settings=["BearerToken"])


def _log_server(pki: Path, folder: Path) -> ThreadingHTTPServer:
    """The endpoint that the API server reads logs from."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            return

        def do_GET(self) -> None:
            found = re.fullmatch(r"/containerLogs/[^/]+/([^/]+)/([^/?]+)\?(.*)", self.path)
            path = folder / found[1] / found[2] if found else folder / "none"
            text = path.read_text() if path.is_file() and found and "previous=true" not in found[3] else None
            lines = re.search(r"tailLines=(\d+)", self.path)
            body = "".join((text or "").splitlines(keepends=True)[-int(lines[1]) if lines else 0 :]).encode()
            self.send_response(200 if text is not None else 400)
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "apiserver.crt", pki / "apiserver.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server
