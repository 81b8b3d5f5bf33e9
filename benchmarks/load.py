"""A constant load of real predict requests, REST and gRPC over connections that are used again, and what became of each request.

Every answer is compared with what each known release must answer to that image, so it names the release that gave it; an answer that no
release gives is wrong.
"""

import json
import math
import threading
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal, Self

import grpc
import httpx
import numpy as np

Protocol = Literal["REST", "gRPC"]
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Answered:
    """One request: when it was sent (monotonic seconds), how long it took (seconds), and the release that answered or what went wrong."""

    at: float
    seconds: float
    protocol: Protocol
    release: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Target:
    """Where the live Service answers, and what the releases must answer: release → probabilities float [images, classes]."""

    address: str
    name: str
    images: Sequence[bytes]
    expected: Mapping[str, Any]
    rest_port: int = 8501
    grpc_port: int = 8500
    label: str = ""
    """The version label that is asked for; empty: none, which is the latest version."""


@dataclass
class Load:
    """Clients that ask at a constant total rate until the block ends. Each opens a new connection every `connection_seconds`, as a client
    behind an even-spreading Service must, to notice new pods and to leave ending ones in time.
    """

    target: Target
    rate: float
    clients: int = 4
    connection_seconds: float = 2.0
    timeout: float = 10.0
    answers: list[Answered] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Start the clients; even ones speak REST, odd ones gRPC."""
        protocols: list[Protocol] = ["REST", "gRPC"]
        for number in range(self.clients):
            thread = threading.Thread(target=self._client, args=(number, protocols[number % 2]), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        """End them and wait for what is in flight."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, requests: int, timeout: float = 600.0) -> None:
        """Wait until so many requests were answered."""
        deadline = time.monotonic() + timeout
        while len(self.answers) < requests and time.monotonic() < deadline:
            self._ended.wait(0.05)

    def _client(self, number: int, protocol: Protocol) -> None:
        pause, begin = self.clients / self.rate, time.monotonic() + number / self.rate
        client = _CLIENTS[protocol](self.target, self.timeout)
        opened = time.monotonic() + number * self.connection_seconds / self.clients
        for turn in count():
            # Open loop: a slow answer does not thin the load out, up to one missed turn.
            if self._ended.wait(max(0.0, begin + turn * pause - time.monotonic())):
                break
            if time.monotonic() - opened > self.connection_seconds:
                client.close()
                client, opened = _CLIENTS[protocol](self.target, self.timeout), time.monotonic()
            self.answers.append(self._ask(client, protocol, (number + turn) % len(self.target.images)))
            begin = max(begin, time.monotonic() - (turn + 1) * pause)
        client.close()

    def _ask(self, client: Any, protocol: Protocol, image: int) -> Answered:
        at = time.monotonic()
        try:
            probabilities = client.ask(self.target.images[image])
        except (httpx.HTTPError, grpc.RpcError, ValueError, KeyError) as error:
            return Answered(at, time.monotonic() - at, protocol, problem=f"failed: {_say(error)}")
        seconds = time.monotonic() - at
        release = self._release_of(image, probabilities)
        return Answered(at, seconds, protocol, release, "" if release else f"wrong: {probabilities}")

    def _release_of(self, image: int, probabilities: Sequence[float]) -> str:
        found = np.asarray(probabilities)
        for release, expected in self.target.expected.items():
            if found.shape == expected[image].shape and np.abs(found - expected[image]).max() <= _TOLERANCE:
                return release
        return ""


class _Rest:
    def __init__(self, target: Target, timeout: float) -> None:
        self._http = httpx.Client(base_url=f"http://{target.address}:{target.rest_port}", timeout=timeout, trust_env=False)
        self._path = f"/v1/models/{target.name}{f'/labels/{target.label}' if target.label else ''}:predict"

    def ask(self, image: bytes) -> list[float]:
        body = json.dumps({"instances": [{"b64": b64encode(image).decode()}]}).encode()
        response = self._http.post(self._path, content=body)
        response.raise_for_status()
        return response.json()["predictions"][0]["probabilities"]

    def close(self) -> None:
        self._http.close()


class _Grpc:
    def __init__(self, target: Target, timeout: float) -> None:
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        # A pool of its own: without it, gRPC gives a new channel the old one's connection.
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channel: Any = grpc.insecure_channel(f"{target.address}:{target.grpc_port}", options=options)
        self._stub: Any = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._name, self._label, self._timeout = target.name, target.label, timeout

    def ask(self, image: bytes) -> list[float]:
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._name
        if self._label:
            request.model_spec.version_label = self._label
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([image]))
        response = self._stub.Predict(request, timeout=self._timeout)
        return list(response.outputs["probabilities"].float_val) or tf.make_ndarray(response.outputs["probabilities"])[0].tolist()

    def close(self) -> None:
        self._channel.close()


_CLIENTS: dict[Protocol, Any] = {"REST": _Rest, "gRPC": _Grpc}


def _say(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"{error.response.status_code} {error.response.text[:200]}"
    return f"{error.code().name} {error.details()}" if isinstance(error, grpc.RpcError) else f"{type(error).__name__}: {error}"  # pyright: ignore


def quantile(answers: Sequence[Answered], part: float) -> float:
    """The nearest-rank quantile of the latencies of good answers, in milliseconds; NaN without one."""
    values = sorted(each.seconds for each in answers if not each.problem)
    return 1000 * values[min(len(values) - 1, math.ceil(part * len(values)) - 1)] if values else math.nan


def share_of(answers: Sequence[Answered], release: str) -> float:
    """The percentage of good answers that a release gave; NaN without one."""
    good = [each for each in answers if not each.problem]
    return 100 * sum(each.release == release for each in good) / len(good) if good else math.nan
