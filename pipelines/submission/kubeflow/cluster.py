"""The Kubernetes that an installation runs in: pods, claims, events and Argo's Workflows, as far as this machine can reach it."""

import base64
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from components.core.errors import DualError, missing_extra
from serving.rollout.cluster.kubeconfig import load_context

Json = dict[str, Any]
RUN_LABEL = "pipeline/runid"
ARGO = ("argoproj.io", "v1alpha1")
_TIMEOUT = (3.05, 15.0)
_T = TypeVar("_T")


class ClusterError(DualError):
    """The Kubernetes API can't be reached, or refuses."""

    status = 0
    """HTTP status of the refusal; 0 if there was no answer."""


@dataclass(frozen=True)
class Cluster:
    """One Kubernetes API; everything comes as plain dictionaries, as the API server sends it."""

    client: Any
    """A `kubernetes.client.ApiClient`."""

    def pods(self, namespace: str, selector: str) -> list[Json]:
        """Pods with these labels."""
        return self._items(self._core().list_namespaced_pod, namespace, label_selector=selector)

    def events(self, namespace: str, name: str) -> list[Json]:
        """What was said of an object of that name, oldest first."""
        found = self._items(self._core().list_namespaced_event, namespace, field_selector=f"involvedObject.name={name}")
        return sorted(found, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")

    def claim(self, namespace: str, name: str) -> Json:
        """A PersistentVolumeClaim."""
        return self._one(self._core().read_namespaced_persistent_volume_claim, name, namespace)

    def service(self, namespace: str, name: str) -> Json:
        """A Service."""
        return self._one(self._core().read_namespaced_service, name, namespace)

    def log(self, namespace: str, pod: str, container: str, lines: int) -> str:
        """The end of a container's log."""
        read = self._core().read_namespaced_pod_log
        return str(_asked(lambda: read(pod, namespace, container=container, tail_lines=lines, _request_timeout=_TIMEOUT), f"log of {pod}"))

    def workflows(self, namespace: str, selector: str) -> list[Json]:
        """Argo's Workflows with these labels; their nodes are unpacked."""
        return [unpacked(each) for each in self.custom_list(namespace, "workflows", selector)]

    def custom_list(self, namespace: str, plural: str, selector: str = "") -> list[Json]:
        """Argo's objects of a kind."""
        api = self._custom().list_namespaced_custom_object
        answer = _asked(
            lambda: api(*ARGO, namespace, plural, label_selector=selector, _request_timeout=_TIMEOUT), f"{plural} in {namespace}"
        )
        return answer["items"]

    def custom_find(self, namespace: str, plural: str, name: str) -> Json | None:
        """One of Argo's objects, or None."""
        api = self._custom().get_namespaced_custom_object
        try:
            return _asked(lambda: api(*ARGO, namespace, plural, name, _request_timeout=_TIMEOUT), f"{plural} {namespace}/{name}")
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    def custom_create(self, namespace: str, plural: str, body: Json) -> Json:
        """Make one of Argo's objects."""
        api = self._custom().create_namespaced_custom_object
        where = f"{plural} {namespace}/{body['metadata']['name']}"
        return _asked(lambda: api(*ARGO, namespace, plural, body, _request_timeout=_TIMEOUT), where)

    def custom_replace(self, namespace: str, plural: str, body: Json) -> Json:
        """Replace the object that was read under the body's resourceVersion."""
        api, name = self._custom().replace_namespaced_custom_object, body["metadata"]["name"]
        return _asked(lambda: api(*ARGO, namespace, plural, name, body, _request_timeout=_TIMEOUT), f"{plural} {namespace}/{name}")

    def custom_patch(self, namespace: str, plural: str, name: str, body: Json) -> Json:
        """Lay `body` over an object (JSON merge patch)."""
        api = self._custom().patch_namespaced_custom_object
        return _asked(lambda: api(*ARGO, namespace, plural, name, body, _request_timeout=_TIMEOUT), f"{plural} {namespace}/{name}")

    def custom_delete(self, namespace: str, plural: str, name: str) -> None:
        """Delete an object."""
        api = self._custom().delete_namespaced_custom_object
        _asked(lambda: api(*ARGO, namespace, plural, name, _request_timeout=_TIMEOUT), f"{plural} {namespace}/{name}")

    def _core(self) -> Any:
        from kubernetes import client

        return client.CoreV1Api(self.client)

    def _custom(self) -> Any:
        from kubernetes import client

        return client.CustomObjectsApi(self.client)

    def _items(self, call: Callable[..., Any], namespace: str, **query: str) -> list[Json]:
        answer = _asked(lambda: call(namespace, **query, _request_timeout=_TIMEOUT, _preload_content=False), f"namespace {namespace}")
        return json.loads(answer.data)["items"]

    def _one(self, call: Callable[..., Any], name: str, namespace: str) -> Json:
        answer = _asked(lambda: call(name, namespace, _request_timeout=_TIMEOUT, _preload_content=False), f"{namespace}/{name}")
        return json.loads(answer.data)


def open_cluster(context: str = "") -> Cluster:
    """The cluster of a kubeconfig, or of this pod; `UsageError` if there is no way to one. Nothing is asked yet."""
    try:
        from kubernetes import client, config
    except ImportError:
        raise missing_extra("deployer", "kubernetes") from None
    configuration: Any = client.Configuration()
    configuration.retries = False
    load_context(config, configuration, context, None)
    return Cluster(client.ApiClient(configuration))


def unpacked(workflow: Json) -> Json:
    """The Workflow with its nodes: Argo packs many nodes into one text (base64 of gzip)."""
    status = workflow.get("status") or {}
    if packed := status.get("compressedNodes"):
        nodes = json.loads(gzip.decompress(base64.b64decode(packed)))
        return {**workflow, "status": {**status, "nodes": nodes}}
    return workflow


def _asked(call: Callable[[], _T], where: str) -> _T:
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        return call()
    except ApiException as error:
        raise _refused(error, where) from None
    except (HTTPError, OSError) as error:
        raise ClusterError(f"the API server does not answer ({type(error).__name__})", where=where, fix="Check the kubeconfig") from None


def _refused(error: Any, where: str) -> ClusterError:
    try:
        said = json.loads(error.body)["message"]
    except (ValueError, KeyError, TypeError):
        said = error.reason or "no reason given"
    fix = "Ask for the right, see docs/kubeflow.md" if error.status in (401, 403) else "Check the name and the namespace"
    refused = ClusterError(f"{error.status}, {said}", where=where, fix=fix)
    refused.status = error.status
    return refused
