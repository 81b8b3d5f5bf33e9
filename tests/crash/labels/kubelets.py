"""Stands in for the Deployment controller and the kubelets of hosts: each pod is a server in memory, and the real holder's looks.

A pod is ready when its label `stable` answers, as the manifest's probe asks. What its server says can be read over HTTP, as ever.
"""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from components.core.errors import DualError
from components.core.release import release_version
from serving.fetch.hold import Holder, Stager
from serving.fetch.order import HoldOrder, Order
from serving.rollout.cluster.api import Api, Json, connect
from serving.rollout.cluster.holding import Holding, holdings_of, refusal_of
from serving.rollout.cluster.names import NAME, REVISION, query
from serving.rollout.cluster.revision import is_host
from tests.crash.cluster_site import settle
from tests.rollout.fake_server import FakeServer

_MOMENTS = 30
_ORDER = HoldOrder("/store", "labels-000000", None, Path("/nowhere/classifier"))
_WORKERS = 6
_TRIES = 5


@dataclass
class Shelf(Stager):
    """Files that are there at once, or refused."""

    files: set[int] = field(default_factory=set)
    refused: Collection[int] = ()

    def staged(self) -> set[int]:
        return set(self.files)

    def fetch(self, version: int, order: Order) -> None:
        if version not in self.refused:
            self.files.add(version)

    def remove(self, kept: Collection[int]) -> None:
        self.files &= set(kept)


@dataclass
class Pod:
    """One pod of a host."""

    name: str
    server: FakeServer
    shelf: Shelf = field(default_factory=lambda: Shelf(_ORDER, lambda _: None))
    said: bool | None = None
    """Whether it is ready, as its kubelet last said."""
    asleep: bool = False
    """Whether its holder does nothing at all."""
    served: bool = False
    gaps: list[str] = field(default_factory=list)
    """Moments at which the label stable led nowhere after it had led somewhere."""

    def hold(self, holding: Holding) -> None:
        """Look until all is as wanted, or nothing moves any more."""
        orders = {version: _ORDER.of(release, "") for version, release in holding.versions().items()}
        for _ in range(_MOMENTS):
            with suppress(DualError):
                if Holder(self.server, self.shelf).look(orders, holding.labels()):
                    break
            self.server.step()
            self._watch()

    def _watch(self) -> None:
        answers = self.server.stable() is not None
        if self.served and not answers:
            self.gaps.append(f"{self.name}: the label stable led to {self.server.labels} of {self.server.known}")
        self.served = answers

    def restart(self) -> None:
        """The server's container."""
        self.server, self.served = FakeServer(self.server.broken), False


@dataclass
class Ward:
    """What a test does to the pods of one namespace."""

    broken: set[str] = field(default_factory=set)
    """Releases that no server can load."""
    refused: set[str] = field(default_factory=set)
    """Releases whose files are not what they should be."""
    seconds: float = 0.0
    """How late holders notice what is written."""
    pods: dict[str, list[Pod]] = field(default_factory=lambda: defaultdict(list))
    """Revision → its pods."""
    made: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)


class Kubelets:
    """Attends to every namespace in which something changes."""

    def __init__(self, kubeconfig: Path) -> None:
        self._api = connect("default", kubeconfig=kubeconfig, patience=5)
        self.wards: dict[str, Ward] = defaultdict(Ward)
        self.left: set[str] = set()
        """Namespaces whose Deployments have whatever status a test gives them."""
        self._ended, self._workers = threading.Event(), ThreadPoolExecutor(_WORKERS)
        self._pages = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self.wards))
        self._pages.daemon_threads = True
        self._threads = [threading.Thread(target=self._pages.serve_forever, args=(0.05,), daemon=True)]
        for path in ("/apis/apps/v1/deployments", "/api/v1/services"):
            self._threads.append(threading.Thread(target=self._watch, args=(path,), daemon=True))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._pages.shutdown()
        self._pages.server_close()

    @property
    def address(self) -> str:
        """Where pods' pages are, below /<namespace>/<pod>."""
        return f"http://127.0.0.1:{self._pages.server_address[1]}"

    def attend(self, namespace: str) -> None:
        """Bring the namespace's pods to where they should be by now; one at a time."""
        time.sleep(self.wards[namespace].seconds)
        for _ in range(_TRIES):
            try:
                return self._attend(namespace)
            except DualError:
                # A test is at the same objects, or the API server is busy.
                continue
        return None

    def _attend(self, namespace: str) -> None:
        ward, api = self.wards[namespace], Api(self._api._client, namespace, patience=5)
        with ward.lock:
            service = api.find("Service", "classifier")
            for deployment in list(api.list("Deployment", f"{NAME}=classifier")):
                revision = deployment["metadata"]["labels"].get(REVISION, "")
                if is_host(revision):
                    self._attend_host(api, ward, deployment, holdings_of(service).get(revision) if service else None)
                else:
                    settle(api, deployment)

    def _attend_host(self, api: Api, ward: Ward, deployment: Json, holding: Holding | None) -> None:
        pods, wanted = ward.pods[deployment["metadata"]["labels"][REVISION]], deployment["spec"].get("replicas", 0)
        while len(pods) > wanted:
            _remove(api, pods.pop())
        while len(pods) < wanted:
            ward.made += 1
            pods.append(_make(api, deployment, f"{deployment['metadata']['name']}-{ward.made}", ward))
        for pod in pods:
            _update(api, ward, pod, holding)
        if api.namespace not in self.left:
            settle(api, deployment, sum(bool(pod.said) for pod in pods))

    def _watch(self, path: str) -> None:
        while not self._ended.is_set():
            with suppress(HTTPError, ApiException, OSError):
                for found in self._changes(path):
                    self._workers.submit(self.attend, found["metadata"]["namespace"])

    def _changes(self, path: str) -> Iterator[Json]:
        stream: Any = self._api._client.call_api(
            path,
            "GET",
            query_params=[("watch", "true"), ("resourceVersion", "0"), ("timeoutSeconds", "300")],
            auth_settings=["BearerToken"],
            _preload_content=False,
            _return_http_data_only=True,
            _request_timeout=(5, 310),
        )
        with closing(stream):
            begun = b""
            for chunk in stream.stream():
                *lines, begun = (begun + chunk).split(b"\n")
                events = (json.loads(line) for line in lines)
                yield from (each["object"] for each in events if each["object"]["metadata"].get("labels", {}).get(NAME) == "classifier")


def _make(api: Api, deployment: Json, name: str, ward: Ward) -> Pod:
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    spec = {"containers": [{"name": "server", "image": "server:1"}], "nodeName": "node-1"}
    api.create("Pod", {"metadata": {"name": name, "labels": labels}, "spec": spec})
    return Pod(name, FakeServer({release_version(release) for release in ward.broken}))


def _remove(api: Api, pod: Pod) -> None:
    found = api.find("Pod", pod.name)
    if found:
        path = f"/api/v1/namespaces/{api.namespace}/pods/{pod.name}"
        # Without a kubelet nobody else would end it.
        api._client.call_api(path, "DELETE", body={"gracePeriodSeconds": 0}, auth_settings=["BearerToken"], _preload_content=False)


def _update(api: Api, ward: Ward, pod: Pod, holding: Holding | None) -> None:
    pod.shelf.refused = {release_version(release) for release in ward.refused}
    pod.server.broken |= {release_version(release) for release in ward.broken}
    if holding is not None and not pod.asleep:
        pod.hold(holding)
    ready = pod.server.stable() is not None
    if ready != pod.said:
        conditions = [{"type": "Ready", "status": str(ready)}]
        status = {"phase": "Running", "podIP": "127.0.0.1", "conditions": conditions}
        api.patch("Pod", f"{pod.name}/status", [{"op": "add", "path": "/status", "value": status}])
        pod.said = ready


def _handler(wards: dict[str, Ward]) -> type[BaseHTTPRequestHandler]:
    class Page(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self) -> None:
            _, namespace, name, _, _, _, *rest = self.path.split("/")
            pods = [pod for revision in list(wards[namespace].pods.values()) for pod in revision if pod.name == name]
            status, body = pods[0].server.page(rest[1] if rest else "") if pods else (503, "{}")
            self.send_response(status)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())
            self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Page


def pods_of(api: Api, selector: dict[str, str]) -> list[Json]:
    """The Pod objects with these labels."""
    return list(api.list("Pod", query(selector)))


@contextmanager
def kubelets_of(kubeconfig: Path) -> Iterator[Kubelets]:
    """Running ones."""
    kubelets = Kubelets(kubeconfig)
    kubelets.start()
    try:
        yield kubelets
    finally:
        kubelets.stop()


def refusing_log(release: str) -> str:
    """The last line of a holder that will not have a release."""
    return f"{refusal_of(release)}saved_model.pb is another one"
