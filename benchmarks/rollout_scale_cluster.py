"""What KWOK does, for one namespace: pods appear and are ready when a Deployment wants them, and go when it does not. No container runs."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from components.core.errors import MissingObjectError
from serving.rollout.cluster.api import ChangedError, Json, connect
from serving.rollout.cluster.names import NAME

_AT_ONCE = 8
_TIME = "2026-01-01T00:00:00Z"
_READY = [
    {"type": kind, "status": "True", "lastTransitionTime": _TIME} for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
]


class Cluster:
    """Controllers, scheduler and kubelets in one."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        """Nothing is made yet."""
        self._api = connect(namespace, kubeconfig=kubeconfig)
        self._pods: dict[str, list[str]] = {}
        self._pool = ThreadPoolExecutor(_AT_ONCE)

    def run(self) -> None:
        """For ever."""
        while True:
            for deployment in self._changes():
                if deployment["metadata"]["name"] != "classifier":
                    self._attend(deployment)

    def _changes(self) -> Iterator[Json]:
        path = f"/apis/apps/v1/namespaces/{self._api.namespace}/deployments"
        query = [("watch", "true"), ("resourceVersion", "0"), ("labelSelector", f"{NAME}=classifier")]
        how: dict[str, Any] = {"auth_settings": ["BearerToken"], "_preload_content": False, "_return_http_data_only": True}
        stream: Any = self._api._client.call_api(path, "GET", query_params=query, **how)
        with closing(stream):
            begun = b""
            for chunk in stream.stream():
                *lines, begun = (begun + chunk).split(b"\n")
                yield from (event["object"] for event in map(json.loads, lines) if event["type"] in ("ADDED", "MODIFIED"))

    def _attend(self, deployment: Json) -> None:
        name, wanted = deployment["metadata"]["name"], deployment["spec"].get("replicas", 0)
        pods = self._pods.setdefault(name, [])
        surplus, missing = pods[wanted:], wanted - len(pods)
        del pods[wanted:]
        pods += self._pool.map(lambda _: self._start(deployment), range(missing))
        list(self._pool.map(self._end, surplus))
        status = {"observedGeneration": deployment["metadata"]["generation"], "replicas": wanted, "readyReplicas": wanted}
        kept = {key: value for key, value in status.items() if value}
        if {key: (deployment.get("status") or {}).get(key) for key in kept} != kept:
            with suppress(ChangedError, MissingObjectError):
                self._api.patch("Deployment", f"{name}/status", [{"op": "add", "path": "/status", "value": kept}])

    def _start(self, deployment: Json) -> str:
        template, name = deployment["spec"]["template"], f"{deployment['metadata']['name']}-{os.urandom(4).hex()}"
        metadata = {"name": name, "labels": template["metadata"]["labels"]}
        self._api.create("Pod", {"metadata": metadata, "spec": {**template["spec"], "nodeName": "node-1"}})
        containers = [_running(each["name"], each["image"]) for each in template["spec"]["containers"]]
        status = {"phase": "Running", "podIP": "10.0.0.1", "startTime": _TIME, "conditions": _READY, "containerStatuses": containers}
        self._api.patch("Pod", f"{name}/status", [{"op": "add", "path": "/status", "value": status}])
        return name

    def _end(self, name: str) -> None:
        # As a kubelet that is done: no grace, or the pod would wait for one.
        self._api._json("DELETE", "Pod", name, body={"gracePeriodSeconds": 0})


def _running(name: str, image: str) -> Json:
    state = {"running": {"startedAt": _TIME}}
    return {"name": name, "image": image, "imageID": image, "ready": True, "started": True, "restartCount": 0, "state": state}
