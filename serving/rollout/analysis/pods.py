"""Pods of a rollout as the analysis sees them: an address, and two questions."""

import json
import ssl
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.errors import DualError
from serving.rollout.analysis.answers import Answer, explain, fetch

_LOG = "See the pod's log"
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Pods speak plain HTTP; reading the list of authorities for each of some hundred clients would take seconds."""


@dataclass(frozen=True)
class PodTarget:
    """One server pod: where it answers, and what it serves."""

    name: str
    address: str
    """Host name or IP, IPv6 without brackets."""
    rest_port: int
    grpc_port: int
    revision: str
    path: str = ""
    """Which version of the model is meant: `versions/N`, `labels/L`; empty where there is only one."""
    shared: bool = False
    """Whether the server answers for another version as well: what it counts says nothing of this one."""

    def url(self) -> str:
        """The base URL of its REST interface, without a slash at the end."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.rest_port}"

    def __str__(self) -> str:
        """`pod NAME at host:port`, and the version that is meant."""
        return f"pod {self.name} at {self.url().removeprefix('http://')}" + (f" ({self.path})" if self.path else "")


class UnreachableError(DualError):
    """Nothing listens at the pod's address: it may just have been evicted, which says nothing about the model."""


class RefusedError(DualError):
    """The pod's server answered, and not with what was asked for."""

    def __init__(self, what: str, status: int, *, where: str) -> None:
        """`status` is the HTTP status of the answer."""
        super().__init__(what, where=where, fix=_LOG)
        self.status = status


class PodAccess(Protocol):
    """How one pod is asked; may be used from several threads at once."""

    def get(self, path: str) -> str:
        """The text at a path; `UnreachableError` if nothing listens, `RefusedError` for an answer that is no 2xx, else a `DualError`."""
        ...

    def predict(self, image: bytes) -> dict[str, Any]:
        """The answer to one encoded image, as `read_prediction` gives it; errors as for `get`."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


Connect = Callable[[PodTarget], PodAccess]


class DirectAccess:
    """A pod asked at its own address, with connections that are used again."""

    def __init__(self, target: PodTarget, model: str, *, timeout: float = 10.0, connections: int = 16) -> None:
        """Connect lazily. `timeout` in seconds, `connections` at most at once; `close` when done."""
        self._target, self._model, self._timeout = target, model, timeout
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        # A proxy of the environment knows no pod addresses.
        self._http = httpx.Client(base_url=target.url(), limits=limits, trust_env=False, verify=_NO_TLS)

    def get(self, path: str) -> str:
        """The text at a path, as `PodAccess` says."""
        return self._checked(self._send("GET", path)).text

    def predict(self, image: bytes) -> dict[str, Any]:
        """The answer to one encoded image, as `PodAccess` says."""
        path, body = predict_request(self._model, image, self._target.path)
        return read_prediction(self._checked(self._send("POST", path, body)).text, where=str(self._target))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _send(self, method: str, path: str, body: bytes | None = None) -> Answer:
        try:
            try:
                return self._once(method, path, body)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                # A server may close an idle connection at the moment in which it is used again; asking twice does no harm.
                return self._once(method, path, body)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise UnreachableError(explain(error, self._timeout), where=str(self._target), fix="Is the pod still there?") from None
        except httpx.HTTPError as error:
            raise DualError(explain(error, self._timeout), where=str(self._target), fix=_LOG) from None

    def _once(self, method: str, path: str, body: bytes | None) -> Answer:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        request = self._http.build_request(method, path, content=body, headers=headers)
        return fetch(self._http, request, seconds=self._timeout)

    def _checked(self, answer: Answer) -> Answer:
        if not answer.ok:
            raise RefusedError(answer.quoted(), answer.status, where=str(self._target))
        return answer


def predict_request(model: str, image: bytes, version: str = "") -> tuple[str, bytes]:
    """Path and JSON body of the REST request that classifies one encoded image; `version` is as in `PodTarget.path`."""
    path = f"/v1/models/{model}" + (f"/{version}" if version else "")
    return f"{path}:predict", json.dumps({"instances": [{"b64": b64encode(image).decode()}]}).encode()


class _Classified(BaseModel):
    model_config = ConfigDict(extra="allow")

    label: str
    probabilities: list[float]


class _Predictions(BaseModel):
    predictions: list[_Classified]


def read_prediction(text: str, *, where: str) -> dict[str, Any]:
    """The one classification in a REST answer: `label`, `probabilities` and what else there is; `DualError` if it is none."""
    try:
        found = _Predictions.model_validate_json(text).predictions
    except ValidationError:
        found = []
    if len(found) != 1:
        raise DualError(
            f"answered no classification: {text[:200]}", where=where, fix="The model's signature must give label and probabilities"
        )
    return found[0].model_dump()
