"""A model behind TF Serving's REST and gRPC, asked as an application would ask it. Works with any TF Serving."""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import httpx
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc

_MAX_MESSAGE = 1 << 30


class RemoteModel:
    """One model on one server; both connections are kept open. Use it as a context manager, from one thread."""

    over_grpc = True
    """Whether gRPC reaches it."""

    def __init__(self, host: str, rest_port: int, grpc_port: int, name: str, timeout: float = 30.0) -> None:
        """Connect lazily; `timeout` is in seconds per request."""
        self.name, self.timeout = name, timeout
        self.http = httpx.Client(base_url=f"http://{host}:{rest_port}", timeout=timeout, trust_env=False)
        limits = [("grpc.max_send_message_length", _MAX_MESSAGE), ("grpc.max_receive_message_length", _MAX_MESSAGE)]
        # A proxy of the environment knows neither this machine's nor a cluster's addresses.
        limits.append(("grpc.enable_http_proxy", 0))
        self.channel: Any = grpc.insecure_channel(f"{host}:{grpc_port}", options=limits)
        self.prediction: Any = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models: Any = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def __enter__(self) -> "RemoteModel":
        """Use it in a `with` block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close both connections."""
        self.http.close()
        self.channel.close()

    def path(self, version: int | str | None = None) -> str:
        """The model's REST path; `version` is a number or a label."""
        if version is None:
            return f"/v1/models/{self.name}"
        return f"/v1/models/{self.name}/{'labels' if isinstance(version, str) else 'versions'}/{version}"

    def post(self, body: bytes, version: int | str | None = None) -> httpx.Response:
        """POST any body to `:predict`."""
        return self.http.post(f"{self.path(version)}:predict", content=body)

    def classify_rest(self, images: Sequence[bytes]) -> list[dict[str, Any]]:
        """Encoded images → `probabilities`, `label`, `score` of each, over REST; raises httpx.HTTPStatusError if refused."""
        response = self.post(images_body(images))
        response.raise_for_status()
        return response.json()["predictions"]

    def classify_grpc(self, images: Sequence[bytes]) -> list[dict[str, Any]]:
        """The same over gRPC; raises grpc.RpcError if refused."""
        outputs = self.predict({"image_bytes": list(images)})
        labels = [label.decode() for label in outputs["label"]]
        rows = zip(outputs["probabilities"].tolist(), labels, outputs["score"].tolist(), strict=True)
        return [{"probabilities": row, "label": label, "score": score} for row, label, score in rows]

    def predict(self, inputs: Mapping[str, Any], signature: str = "", version: int | str | None = None) -> dict[str, Any]:
        """Arrays by input name → arrays by output name, over gRPC; raises grpc.RpcError if refused."""
        response = self.prediction.Predict(self.request(inputs, signature, version), timeout=self.timeout)
        return {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}

    def request(self, inputs: Mapping[str, Any], signature: str = "", version: int | str | None = None) -> Any:
        """The PredictRequest of some arrays."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = self.name, signature
        if isinstance(version, str):
            request.model_spec.version_label = version
        elif version is not None:
            request.model_spec.version.value = version
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        return request


class RestModel(RemoteModel):
    """One model that only REST reaches, through a client that somebody else connected."""

    over_grpc = False

    def __init__(self, http: httpx.Client, name: str) -> None:
        """Use `http`, whose base is what the server's paths are added to; it is closed at the end."""
        self.name, self.http, self.timeout = name, http, float(http.timeout.read or 0)

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.http.close()


def images_body(images: Sequence[bytes]) -> bytes:
    """The JSON body (row format) that classifies encoded images."""
    return json.dumps({"instances": [{"b64": b64encode(image).decode()} for image in images]}).encode()


def largest_difference(answer: Mapping[str, Any], expected: Sequence[float]) -> float:
    """The largest difference between an answer's probabilities and the expected ones; infinity if their numbers differ."""
    found = np.asarray(answer.get("probabilities", []), np.float64)
    if found.shape != (len(expected),) or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - np.asarray(expected)).max())
