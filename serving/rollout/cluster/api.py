"""The Kubernetes API as a rollout needs it: plain dictionaries, JSON patches that test what they assume, and patience.

Every call may be repeated: reads change nothing, patches carry their own preconditions, and whoever creates or replaces compares
first. So what may pass by itself (429, 5xx, a timeout, a lost connection) is tried again here until `patience` seconds are over.
https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

import json
import random
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx

from components.core.errors import ConflictError, DualError, MissingObjectError, missing_extra
from serving.rollout.cluster.kubeconfig import load_context

Json = dict[str, Any]

_KINDS = {
    "ConfigMap": "/api/v1/namespaces/{namespace}/configmaps",
    "Deployment": "/apis/apps/v1/namespaces/{namespace}/deployments",
    "Event": "/api/v1/namespaces/{namespace}/events",
    "HTTPRoute": "/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/httproutes",
    "HorizontalPodAutoscaler": "/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers",
    "Job": "/apis/batch/v1/namespaces/{namespace}/jobs",
    "Lease": "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases",
    "Pod": "/api/v1/namespaces/{namespace}/pods",
    "Service": "/api/v1/namespaces/{namespace}/services",
}
_PATCH = "application/json-patch+json"
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_LONGEST_PAUSE = 5.0
_RIGHTS_SECONDS = 10.0
"""An API server that has just started refuses what it allowed before, until it has read its roles."""
_PAGE = 500
_REASONS = {
    "exceeded quota": (
        "a full quota does not let it be made",
        "Raise the quota, or delete what nobody needs (kubectl describe resourcequota), then run again",
    ),
    "being terminated": (
        "its namespace is being deleted",
        "Find out who deletes it; apply the manifests to a namespace that stays, then run again",
    ),
}
"""What a 403 says besides that the identity may not → what that means, and the way out."""
_DENIED = re.compile("denied (the )?request")
"""A policy or a webhook of the cluster refuses the object, whoever asks."""


class ClusterError(DualError):
    """The cluster refuses, or can't be reached."""


class UnavailableError(ClusterError):
    """The API server did not answer in all the time that there was: nothing is known, and nothing was given up."""


class PodRefusedError(ClusterError):
    """A pod was asked through the API server, and there was an answer that is no 2xx: the pod's, or the API server's about it."""

    def __init__(self, what: str, status: int, *, where: str, fix: str) -> None:
        """`status` is the HTTP status of the answer."""
        super().__init__(what, where=where, fix=fix)
        self.status = status


class ForbiddenError(ClusterError):
    """This identity may not do that."""


class ExpiredError(ClusterError):
    """What a list began with is no longer known to the API server: it must begin anew."""


class ChangedError(ConflictError):
    """A write's precondition does not hold any more: look again."""


class Api:
    """One namespace of one cluster. `calls` counts requests by verb, retries included."""

    def __init__(self, client: Any, namespace: str, *, timeout: float = 10.0, patience: float = 60.0) -> None:
        """Use a `kubernetes.client.ApiClient`; `timeout` is per request, `patience` per call with its retries, both in seconds."""
        self.namespace = namespace
        self.calls: dict[str, int] = dict.fromkeys(("GET", "POST", "PATCH", "PUT", "DELETE"), 0)
        self._client, self._timeout, self._patience = client, timeout, patience
        self._granted: set[tuple[str, str]] = set()
        self.asking: Callable[[], None] = lambda: None
        """Called by whoever makes a request, before each one."""

    def get(self, kind: str, name: str) -> Json:
        """The object; `MissingObjectError` if there is none."""
        return self._json("GET", kind, name)

    def find(self, kind: str, name: str) -> Json | None:
        """The object, or None."""
        try:
            return self.get(kind, name)
        except MissingObjectError:
            return None

    def find_allowed(self, kind: str, name: str) -> Json | None:
        """The object, or None, also if this identity may not look for it: for what only some clusters have."""
        try:
            return self.find(kind, name)
        except ForbiddenError:
            return None

    def list(self, kind: str, labels: str, *, fields: str = "") -> Iterator[Json]:
        """Every object with these labels (and fields), once each, as they were at one moment.

        Page by page; in one piece if that moment was forgotten between two pages (410), as client-go's pager does.
        """
        query = [("labelSelector", labels), ("fieldSelector", fields)]
        try:
            found = [each for page in self._pages(kind, query) for each in page]
        except ExpiredError:
            found = self._json("GET", kind, "", query=query).get("items", [])
        return iter(found)

    def _pages(self, kind: str, query: Sequence[tuple[str, str]]) -> Iterator[Sequence[Json]]:
        following = ""
        while True:
            page = self._json("GET", kind, "", query=[*query, ("limit", str(_PAGE)), ("continue", following)])
            yield page.get("items", [])
            following = page.get("metadata", {}).get("continue", "")
            if not following:
                return

    def find_listed(self, kind: str, name: str) -> tuple[Json | None, str]:
        """The object or None, and the version of all that there is, from which `watch` goes on without a gap."""
        page = self._json("GET", kind, "", query=[("fieldSelector", f"metadata.name={name}")])
        return next(iter(page.get("items", [])), None), page["metadata"]["resourceVersion"]

    def watch(self, kind: str, name: str, version: str, seconds: int) -> Iterator[Json]:
        """The API server's events about one object since a version, bookmarks included, for so many seconds at most. One try.

        Raises `ExpiredError` if that version is forgotten, `UnavailableError` if the connection breaks.
        """
        where = f"{kind} {self.namespace}/{name}"
        fields = [("fieldSelector", f"metadata.name={name}"), ("resourceVersion", version), ("timeoutSeconds", str(seconds))]
        query = [*fields, ("watch", "true"), ("allowWatchBookmarks", "true")]
        try:
            with _translated(), closing(self._open("GET", kind, "", query, None, seconds + self._timeout)) as stream:
                for line in _lines(stream):
                    yield _told(line)
        except _Passing as trouble:
            raise UnavailableError(f"the API server could not watch it: {trouble}", where=where, fix="Watch again") from None
        except _Refused as refusal:
            raise _explain(refusal, "watch", where) from None

    def create(self, kind: str, body: Json) -> Json:
        """Make an object; `ChangedError` if the name is taken."""
        return self._json("POST", kind, "", body=body, named=body["metadata"].get("name", ""))

    def patch(self, kind: str, name: str, operations: Sequence[Json]) -> Json:
        """Apply a JSON patch (RFC 6902) as a whole; `ChangedError` if one of its tests fails, `MissingObjectError` without the object."""
        return self._json("PATCH", kind, name, body=list(operations))

    def replace(self, kind: str, body: Json) -> Json:
        """Replace the object read under the body's resourceVersion; `ChangedError` if it changed since."""
        return self._json("PUT", kind, body["metadata"]["name"], body=body)

    def delete(self, kind: str, body: Json, *, as_read: bool = True) -> None:
        """Delete the object exactly as it was read; gone already is fine, `ChangedError` if it changed since.

        Without `as_read` whatever it has become since is deleted; `ChangedError` then means that another one has its name.
        """
        metadata = body["metadata"]
        keys = ("uid", "resourceVersion") if as_read else ("uid",)
        conditions = {"preconditions": {key: metadata[key] for key in keys}}
        try:
            self._json("DELETE", kind, metadata["name"], body={**conditions, "propagationPolicy": "Background"})
        except MissingObjectError:
            return

    def logs(self, pod: str, container: str, *, lines: int = 20, previous: bool = False) -> str:
        """The end of a container's log; empty if there is none to be had."""
        return self.find_logs(pod, container, lines=lines, previous=previous) or ""

    def find_logs(self, pod: str, container: str, *, lines: int = 20, previous: bool = False) -> str | None:
        """The end of a container's log; None if it can't be had (now, or any more)."""
        query = [("container", container), ("tailLines", str(lines)), ("previous", str(previous).lower())]
        try:
            return self._send("GET", "Pod", f"{pod}/log", query, None).decode(errors="replace")
        except (_Passing, _Refused):
            return None

    def ask_pod(self, pod: str, port: int, path: str, body: Any = None) -> bytes:
        """What a pod answers at a path, through the API server: a GET, or a POST of JSON. One try: a pod may have gone.

        `PodRefusedError` with the status of an answer that stays the same, `ClusterError` if there is none.
        """
        try:
            return self._send("POST" if body is not None else "GET", "Pod", f"{pod}:{port}/proxy/{path.lstrip('/')}", [], body)
        except (_Passing, _Refused) as error:
            where = f"Pod {self.namespace}/{pod}, port {port}, through the API server"
            what, fix = f"does not answer /{path.lstrip('/')}: {error}", "See the pod's log"
            if isinstance(error, _Refused):
                raise PodRefusedError(what, error.status, where=where, fix=fix) from None
            raise ClusterError(what, where=where, fix=fix) from None

    def pod_client(self, pod: str, port: int, timeout: float) -> httpx.Client:
        """A client of a pod's port that goes through the API server, with this identity's credentials; `timeout` in seconds."""
        configuration = self._client.configuration
        tls = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if not configuration.verify_ssl:
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        if configuration.cert_file:
            tls.load_cert_chain(configuration.cert_file, configuration.key_file)
        headers: dict[str, str] = {}
        self._client.update_params_for_auth(headers, [], ["BearerToken"])
        address = configuration.host + _KINDS["Pod"].format(namespace=self.namespace) + f"/{pod}:{port}/proxy"
        return httpx.Client(
            base_url=address, headers=headers, verify=tls, timeout=timeout, proxy=configuration.proxy or None, trust_env=False
        )

    def _json(self, verb: str, kind: str, name: str, *, query: Any = (), body: Any = None, named: str = "") -> Json:
        deadline, pauses = time.monotonic() + self._patience, _pauses()
        where = f"{kind} {self.namespace}/{named or name}".rstrip("/")
        rights_until = time.monotonic() + min(self._patience, _RIGHTS_SECONDS)
        while True:
            try:
                answer = _parsed(self._send(verb, kind, name, list(query), body))
                self._granted.add((verb, kind))
                return answer
            except _Passing as trouble:
                pause = trouble.retry_after or next(pauses)
                if time.monotonic() + pause > deadline:
                    what = f"the API server could not {verb} it for {self._patience:g} s: {trouble}"
                    fix = "Run again when the API server answers: a rollout goes on from where it stands"
                    raise UnavailableError(what, where=where, fix=fix) from None
                time.sleep(pause)
            except _Refused as refusal:
                lost = _lacks_rights(refusal) and (verb, kind) in self._granted
                if not lost or time.monotonic() > rights_until:
                    # Waited for once: what was really taken away must not hold up every call from now on.
                    self._granted.discard((verb, kind))
                    raise _explain(refusal, verb, where) from None
                time.sleep(next(pauses))

    def _send(self, verb: str, kind: str, name: str, query: Any, body: Any) -> bytes:
        with _translated():
            # The body is read here and may be cut off here.
            return self._open(verb, kind, name, query, body, self._timeout).data

    def _open(self, verb: str, kind: str, name: str, query: Any, body: Any, timeout: float) -> Any:
        path = _KINDS[kind].format(namespace=self.namespace) + (f"/{name}" if name else "")
        headers = {"Accept": "application/json", "Content-Type": _PATCH if verb == "PATCH" else "application/json"}
        self.calls[verb] += 1
        self.asking()
        return self._client.call_api(
            path,
            verb,
            query_params=query,
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
            _preload_content=False,
            _return_http_data_only=True,
            _request_timeout=(self._timeout, timeout),
        )


@contextmanager
def _translated() -> Iterator[None]:
    """What the client raises, as what may pass or what will not."""
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise _outcome(error) from None
    except (HTTPError, OSError) as error:
        raise _Passing(f"{type(error).__name__}: {error}") from None


class _Passing(Exception):
    """What may be over at the next try."""

    def __init__(self, text: str, retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class _Refused(Exception):
    """An answer that will stay the same."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def _outcome(error: Any) -> Exception:
    headers: Mapping[str, str] = error.headers or {}
    message = _message(error)
    if error.status in _PASSING or not error.status:
        after = headers.get("Retry-After", "")
        return _Passing(f"{error.status or 'no answer'} {message}", min(float(after), _LONGEST_PAUSE) if after.isdigit() else 0.0)
    return _Refused(error.status, message)


def _parsed(body: bytes) -> Json:
    try:
        return json.loads(body)
    except ValueError:
        # A proxy's own page, say.
        raise _Passing(f"an answer that is no JSON: {body[:80].decode(errors='replace')!r}") from None


def _lines(stream: Any) -> Iterator[bytes]:
    begun = b""
    for chunk in stream.stream():
        *lines, begun = (begun + chunk).split(b"\n")
        yield from lines


def _told(line: bytes) -> Json:
    """One event of a watch; what it says of its own end is raised."""
    event = _parsed(line)
    if event["type"] != "ERROR":
        return event
    status, message = event["object"].get("code", 500), event["object"].get("message", "")
    raise _Passing(f"{status} {message}") if status in _PASSING else _Refused(status, message)


def _lacks_rights(refusal: _Refused) -> bool:
    """Whether it is the identity that is refused, and not what it asks for."""
    return refusal.status in (401, 403) and not any(each in refusal.message for each in _REASONS) and not _DENIED.search(refusal.message)


def _explain(refusal: _Refused, verb: str, where: str) -> DualError:
    status, message = refusal.status, refusal.message
    if status == 410:
        return ExpiredError(f"the API server forgot what the list began with: {message}", where=where, fix="Run again")
    if status == 404:
        return MissingObjectError("there is no such object", where=where, fix="Apply the manifests: kubectl apply -k manifests/overlays/…")
    if status in (409, 412) or (status == 422 and verb == "PATCH" and "the server rejected our request" in message):
        return ChangedError("was changed by somebody else meanwhile", where=where, fix="Look again")
    for words, (what, fix) in _REASONS.items():
        if status == 403 and words in message:
            return ClusterError(f"{what}: {message}", where=where, fix=fix)
    if _lacks_rights(refusal):
        fix = "Give this identity the Role classifier-rollout of manifests/base, or use another kubeconfig context"
        return ForbiddenError(f"not allowed to {verb} it: {message}", where=where, fix=fix)
    return ClusterError(
        f"the API server refused to {verb} it ({status}): {message}", where=where, fix="Correct what it names, then run again"
    )


def _message(error: Any) -> str:
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else error.body or ""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return str(body or error.reason)[:300]


def _pauses() -> Iterator[float]:
    pause = 0.1
    while True:
        # Jitter, so that many waiting clients don't come back together; nothing here is secret.
        yield pause * random.uniform(0.5, 1.5)  # noqa: S311
        pause = min(2 * pause, _LONGEST_PAUSE)


def connect(namespace: str = "", *, context: str = "", kubeconfig: Path | None = None, patience: float = 60.0) -> Api:
    """The cluster of a kubeconfig (default: $KUBECONFIG, ~/.kube/config), or the one that this pod runs in.

    An empty `namespace` means the context's own. Raises `UsageError` if there is no way to a cluster.
    """
    try:
        from kubernetes import client, config
    except ImportError:
        raise missing_extra("deployer", "kubernetes") from None
    configuration: Any = client.Configuration()
    # Retries are ours: they must know which calls may be repeated, and how long a rollout can wait.
    configuration.retries = False
    found = load_context(config, configuration, context, kubeconfig)
    return Api(client.ApiClient(configuration), namespace or found, patience=patience)


def test_operation(path: str, value: Any) -> Json:
    """The operation that lets a patch fail unless `path` holds `value`."""
    return {"op": "test", "path": path, "value": value}


def pointer(*parts: str) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)
