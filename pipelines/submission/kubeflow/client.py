"""kfp's client, connected: by address or port-forward, with an identity, and without what it does behind one's back."""

import contextlib
import io
import os
import urllib.request
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kfp
from kfp_server_api import V2beta1GetHealthzResponse

from components.core.errors import MissingError, UsageError
from pipelines.submission.kubeflow.cluster import Cluster, open_cluster
from pipelines.submission.kubeflow.connection import PORT_FORWARD, Connection
from pipelines.submission.kubeflow.credentials import Credentials, find_credentials
from pipelines.submission.kubeflow.faults import KubeflowError
from pipelines.submission.kubeflow.forward import Forward
from pipelines.submission.kubeflow.wire import Wire

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class _Client(kfp.Client):
    """The client of kfp without its file in the home directory (another tool's namespace and cookie), and without its first request.

    That one is tried five times with five seconds between, each time with a traceback, when an identity is refused: `connect` asks instead.
    """

    def _load_context_setting_or_default(self) -> None:
        """Nothing is read: that file may hold a namespace, a cookie and a header of another tool."""
        self._context_setting = {"namespace": ""}

    def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:
        """Nothing is asked here."""
        del sleep_duration
        return V2beta1GetHealthzResponse(multi_user=False)


@dataclass
class Connected:
    """A client of one installation; `close` ends the port-forward, if there is one."""

    kfp: Any
    host: str
    """The address as a person gave it, or what the port-forward leads to."""
    namespace: str
    """The namespace to name in requests; empty for a single-user installation."""
    pods_namespace: str
    """Where the runs' pods are."""
    ui: str
    credentials: Credentials
    connection: Connection
    forward: Forward | None = None
    _cluster: Cluster | None = field(default=None, repr=False)

    def cluster(self) -> Cluster:
        """The Kubernetes behind it, as far as this machine can reach it; `UsageError` if there is no way to one."""
        if self._cluster is None:
            self._cluster = open_cluster(self.connection.context)
        return self._cluster

    def close(self) -> None:
        """End the port-forward."""
        if self.forward is not None:
            self.forward.close()


def connect(connection: Connection) -> Connected:
    """A client that was answered once: address, certificate, identity and version are right, or one error says what is not."""
    host, shown, forward = _reach(connection)
    try:
        credentials = find_credentials(connection, host)
        client = _made(host, connection, credentials)
        multi_user = _asked_health(client, shown)
        namespace = _namespace(connection, multi_user=multi_user, host=shown)
    except BaseException:
        if forward is not None:
            forward.close()
        raise
    ui = connection.ui or ("" if forward or _is_api_service(host) else host)
    pods = namespace or connection.system_namespace
    return Connected(client, shown, namespace, pods, ui.rstrip("/"), credentials, connection, forward)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """The client of kfp prints links of its own to standard output, which may be JSON."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _reach(connection: Connection) -> tuple[str, str, Forward | None]:
    """(address to ask, address to show, port-forward)."""
    host = connection.host
    if not host and "KUBERNETES_SERVICE_HOST" in os.environ:
        host = f"http://ml-pipeline.{connection.system_namespace}.svc.cluster.local:8888"
    if host and host != PORT_FORWARD:
        return _checked(host), _checked(host), None
    forward = Forward(open_cluster(connection.context), connection.system_namespace)
    return forward.open(), f"port-forward to {connection.system_namespace}/{forward.service}", forward


def _checked(host: str) -> str:
    parts = urlsplit(host)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        fix = "Write for example https://kubeflow.example.com/pipeline, http://localhost:8080, or port-forward"
        raise UsageError(f"'{host}' is no address", where="--host", fix=fix)
    if parts.username or parts.password:
        raise UsageError("an address holds no password", where="--host", fix="Set DUAL_KFP_USERNAME and DUAL_KFP_PASSWORD")
    # People copy addresses from the browser.
    bare = host.partition("#")[0].rstrip("/")
    return bare.removesuffix("/apis/v2beta1").removesuffix("/apis").rstrip("/")


def _made(host: str, connection: Connection, credentials: Credentials) -> Any:
    ca = _existing(connection.ca_file)
    with warnings.catch_warnings(), silent():
        warnings.simplefilter("ignore")
        # An empty cookie: without one, kfp would take its own from a file.
        client = _Client(host=host, namespace="", cookies="", ssl_ca_cert=ca, proxy=_proxy(host))
    # Private, and shared by all of the client's services: the only place below its redirects and above its sockets.
    api = client._run_api.api_client
    api.rest_client = Wire(api.configuration, credentials, connection.timeout)
    api.cookie = None
    return client


def _existing(path: Path | None) -> str | None:
    if path is not None and not path.is_file():
        raise UsageError("there is no such file", where=str(path), fix="Check DUAL_KFP_CA_FILE")
    return str(path) if path else None


def _proxy(host: str) -> str | None:
    parts = urlsplit(host)
    if parts.hostname in _LOOPBACK or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def _asked_health(client: Any, host: str) -> bool:
    """Whether the installation is multi-user."""
    try:
        health = client.healthzs.healthz_service_get_healthz()
    except MissingError:
        fix = "Give the address up to and without /apis; behind Kubeflow's dashboard it ends with /pipeline"
        raise KubeflowError("there is no API of Kubeflow Pipelines 2.x at this address", where=host, fix=fix) from None
    return bool(getattr(health, "multi_user", False))


def _namespace(connection: Connection, *, multi_user: bool, host: str) -> str:
    if multi_user and not connection.namespace:
        raise UsageError("the installation is multi-user: runs belong to a namespace", where=host, fix="Give --namespace")
    if not multi_user and connection.namespace not in ("", connection.system_namespace):
        what = f"the installation is single-user: there is no namespace '{connection.namespace}' for runs"
        raise UsageError(what, where=host, fix="Leave --namespace away")
    return connection.namespace if multi_user else ""


def _is_api_service(host: str) -> bool:
    """Whether the address is that of the API's own Service, which has no pages."""
    return urlsplit(host).port in (8888, 8887) or "ml-pipeline." in (urlsplit(host).hostname or "")
