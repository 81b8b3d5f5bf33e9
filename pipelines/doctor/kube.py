"""The Kubernetes API as the doctor asks it: plain paths and answers, one try each, every refusal told apart from silence.

https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from components.core.errors import DualError, UsageError, missing_extra
from pipelines.doctor.network import silence
from serving.rollout.cluster.kubeconfig import load_context

Json = dict[str, Any]
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""Accept header for lists of Secrets: names and labels, never their values."""
_PAGE = 250


class NoClusterError(DualError):
    """The cluster does not answer, or knows nobody here: nothing of it can be looked at."""


class RefusedError(DualError):
    """The API server answers, and refuses: this identity may not look."""


@dataclass(frozen=True)
class Answer:
    """An answer of the API server."""

    status: int
    body: Json
    headers: Mapping[str, str]

    @property
    def message(self) -> str:
        """What the server says, where it refuses."""
        return str(self.body.get("message", "")) or f"status {self.status}"


class Kube:
    """One cluster, asked as one identity. Safe to use from several threads."""

    def __init__(self, client: httpx.Client, namespace: str) -> None:
        """`namespace` is the context's own."""
        self.namespace, self._client = namespace, client
        self.address = str(client.base_url).rstrip("/")

    def ask(self, verb: str, path: str, body: Json | None = None, *, accept: str = "application/json", **query: str) -> Answer:
        """One request, whatever comes of it; `NoClusterError` without an answer or for an unknown identity."""
        try:
            answer = self._client.request(verb, path, json=body, params=query, headers={"Accept": accept})
        except httpx.HTTPError as error:
            what, fix = silence(error, "kubectl cluster-info")
            raise NoClusterError(what, where=self.address, fix=fix) from None
        if answer.status_code == 401:
            fix = "Log in again (gcloud container clusters get-credentials NAME, or your provider's way); see: kubectl auth whoami"
            raise NoClusterError("401: the API server does not know who asks", where=self.address, fix=fix)
        return Answer(answer.status_code, self._body(answer), answer.headers)

    def _body(self, answer: httpx.Response) -> Json:
        try:
            found = answer.json() if answer.content else {}
        except ValueError:
            if answer.status_code >= 400:
                # The API server's own 404 for a group that it does not know is plain text.
                return {"message": " ".join(answer.text.split())[:200]}
            fix = "Check the server's address in the kubeconfig, and proxies on the way"
            raise NoClusterError("answers with something that is no JSON", where=self.address, fix=fix) from None
        return found if isinstance(found, dict) else {}

    def find(self, path: str) -> Json | None:
        """The object or list at `path`, None if there is none; `RefusedError` if this identity may not look."""
        answer = self.ask("GET", path)
        if answer.status == 404:
            return None
        if answer.status >= 400:
            raise _refused(answer, path)
        return answer.body

    def items(self, path: str, *, accept: str = "application/json", **query: str) -> Iterator[Json]:
        """Everything in a list, page by page; nothing where the API server does not know the kind. Errors as for `find`."""
        following = ""
        while True:
            asked = {**query, "limit": str(_PAGE), **({"continue": following} if following else {})}
            answer = self.ask("GET", path, accept=accept, **asked)
            if answer.status == 404:
                return
            if answer.status >= 400:
                raise _refused(answer, path)
            yield from answer.body.get("items") or []
            following = answer.body.get("metadata", {}).get("continue", "")
            if not following:
                return


def open_kube(*, context: str = "", kubeconfig: Path | None = None, timeout: float = 10.0) -> Kube:
    """The cluster of a kubeconfig, or the one that this pod runs in; nothing is asked yet. `timeout` is for one request, in seconds.

    Raises `NoClusterError` if there is no way to a cluster, `UsageError` without the extra `deployer`.
    """
    try:
        from kubernetes import client, config
    except ImportError:
        raise missing_extra("deployer", "kubernetes") from None
    configuration: Any = client.Configuration()
    try:
        namespace = load_context(config, configuration, context, kubeconfig)
    except UsageError as error:
        raise NoClusterError(error.what, where=error.where, fix=error.fix) from None
    headers: dict[str, str] = {}
    client.ApiClient(configuration).update_params_for_auth(headers, [], ["BearerToken"])
    return Kube(
        httpx.Client(
            base_url=configuration.host,
            headers=headers,
            verify=_tls(configuration),
            timeout=timeout,
            proxy=configuration.proxy or None,
            trust_env=False,
        ),
        namespace,
    )


def _tls(configuration: Any) -> ssl.SSLContext:
    tls = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if not configuration.verify_ssl:
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    if configuration.cert_file:
        tls.load_cert_chain(configuration.cert_file, configuration.key_file)
    return tls


def _refused(answer: Answer, path: str) -> RefusedError:
    fix = f"Look with an identity that may, or ask for the right: kubectl auth can-i get {path.rpartition('/')[2]}"
    return RefusedError(f"{answer.status}: {answer.message}", where=path, fix=fix)
