"""A port-forward to a pod through the Kubernetes API, as `kubectl port-forward` does it, without kubectl.

A listener on the loopback; each connection to it becomes one websocket to the API server. When the pod is replaced, the next connection
finds its successor.
https://kubernetes.io/docs/reference/kubernetes-api/ (pods/portforward)
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from components.core.errors import DualError, UsageError
from pipelines.submission.kubeflow.cluster import Cluster, ClusterError, Json

SERVICE = "ml-pipeline"
_PIECE = 65536


@dataclass
class Forward:
    """A local address that leads to a Service's pod until it is closed."""

    cluster: Cluster
    namespace: str
    service: str = SERVICE
    _listener: Any = None
    _target: tuple[str, int] | None = None
    _lock: Any = field(default_factory=threading.Lock)
    _open: list[Any] = field(default_factory=list)
    """Both ends of every connection."""

    def open(self) -> str:
        """Start to listen; returns the address. `UsageError` or `ClusterError` if no pod can be found, or forwarded to."""
        self._target = self._find()
        # Once now, where a refusal can still be said in words.
        _end(self._connect())
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True, name="port-forward").start()
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        """Stop listening and end every connection."""
        for each in [self._listener, *self._open] if self._listener else []:
            _end(each)

    def _find(self) -> tuple[str, int]:
        spec = self.cluster.service(self.namespace, self.service)["spec"]
        selector = ",".join(f"{key}={value}" for key, value in (spec.get("selector") or {}).items())
        ready = [pod for pod in self.cluster.pods(self.namespace, selector) if _is_ready(pod)]
        if not ready:
            fix = f"See: kubectl -n {self.namespace} get pods -l {selector}"
            raise UsageError(f"no ready pod is behind the Service {self.service}", where=f"namespace {self.namespace}", fix=fix)
        return ready[0]["metadata"]["name"], _container_port(spec, ready[0])

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True, name="port-forward connection").start()

    def _serve(self, near: socket.socket) -> None:
        try:
            far = self._connect()
        except (DualError, OSError):
            # The client sees a closed connection, as it would from kubectl.
            near.close()
            return
        self._open += [near, far]
        back = threading.Thread(target=_pump, args=(far.recv, near.sendall, near), daemon=True, name="port-forward answer")
        back.start()
        _pump(near.recv, far.sendall, far)

    def _connect(self) -> Any:
        assert self._target is not None  # noqa: S101 - open() came first
        try:
            return self._websocket(*self._target)
        except ClusterError:
            self._target = self._find()
            return self._websocket(*self._target)

    def _websocket(self, pod: str, port: int) -> Any:
        from kubernetes import client
        from kubernetes.client.exceptions import ApiException
        from kubernetes.stream import portforward

        # The stream module swaps a method of its client during the call: a client of its own, and one call at a time.
        with self._lock:
            api = client.CoreV1Api(client.ApiClient(self.cluster.client.configuration))
            try:
                forwarded: Any = portforward(api.connect_get_namespaced_pod_portforward, pod, self.namespace, ports=str(port))
            except ApiException as error:
                fix = "The account needs the verb create on pods/portforward"
                raise ClusterError(f"refuses the port-forward ({error.reason})", where=f"pod {self.namespace}/{pod}", fix=fix) from None
        return forwarded.socket(port)


def _pump(receive: Callable[[int], bytes], send: Callable[[bytes], None], end: Any) -> None:
    """Pass on what comes until nothing comes any more, then close the other end."""
    with contextlib.suppress(OSError):
        while piece := receive(_PIECE):
            send(piece)
    _end(end)


def _end(end: Any) -> None:
    """Close a socket, also for a thread that waits for it: closing alone would leave that waiting, and the other side too."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        end.close()


def _is_ready(pod: Json) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _container_port(spec: Json, pod: Json) -> int:
    """The port of the Service's `http`, as its pod has it."""
    port = next((each for each in spec["ports"] if each.get("name") == "http"), spec["ports"][0])
    target = port.get("targetPort", port["port"])
    if isinstance(target, int):
        return target
    declared = (each for container in pod["spec"]["containers"] for each in container.get("ports", []))
    return next(each["containerPort"] for each in declared if each.get("name") == target)
