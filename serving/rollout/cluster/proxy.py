"""Pods asked through the API server: for a person outside the cluster, whose identity may create `pods/proxy`."""

import json
from typing import Any

from serving.rollout.analysis.pods import PodTarget, RefusedError, predict_request, read_prediction
from serving.rollout.cluster.api import Api, PodRefusedError


class ProxyAccess:
    """One pod, asked by the API server on our behalf; safe to use from several threads."""

    def __init__(self, api: Api, target: PodTarget, model: str) -> None:
        """Ask `target`, which serves `model`."""
        self._api, self._target, self._model = api, target, model

    def get(self, path: str) -> str:
        """The text at a path; `RefusedError` for an answer that is no 2xx, `ClusterError` without one."""
        return self._ask(path).decode()

    def predict(self, image: bytes) -> dict[str, Any]:
        """The answer to one encoded image; errors as for `get`."""
        path, body = predict_request(self._model, image, self._target.path)
        return read_prediction(self._ask(path, json.loads(body)).decode(), where=str(self._target))

    def close(self) -> None:
        """Nothing to close: the connections are the API client's."""

    def _ask(self, path: str, body: Any = None) -> bytes:
        try:
            return self._api.ask_pod(self._target.name, self._target.rest_port, path, body)
        except PodRefusedError as error:
            raise RefusedError(error.what, error.status, where=error.where) from None
