"""Requests that no server should fall over: each must get a clean refusal, and the server must go on answering."""

import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import numpy as np

from serving.client.remote import RemoteModel, images_body

_NOT_AN_IMAGE = b"this is no image"
_CODES = {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED"}


@dataclass(frozen=True)
class Attempt:
    """A malformed request and what came back."""

    case: str
    protocol: str
    answer: str
    """Status and error text, or what went wrong instead."""
    clean: bool
    """Whether it was refused with a client error and a reason."""


def send_malformed(model: RemoteModel, image: bytes, too_large: int) -> list[Attempt]:
    """Send every malformed request, over REST and (where it reaches) gRPC; `image` is a good one, `too_large` more bytes than allowed."""
    rest = [_over_rest(model, case, body) for case, body in _bodies(image, too_large).items()]
    calls: Mapping[str, Callable[[], Any]] = {
        "not an image": lambda: model.predict({"image_bytes": [_NOT_AN_IMAGE]}),
        "empty image": lambda: model.predict({"image_bytes": [b""]}),
        "truncated image": lambda: model.predict({"image_bytes": [image[: len(image) // 2]]}),
        "one bad image among good ones": lambda: model.predict({"image_bytes": [image, _NOT_AN_IMAGE]}),
        "unknown signature": lambda: model.predict({"image_bytes": [image]}, signature="no_such_signature"),
        "unknown version": lambda: model.predict({"image_bytes": [image]}, version=1 << 52),
        "wrong input name": lambda: model.predict({"picture": [image]}),
        "wrong type": lambda: model.predict({"image_bytes": np.zeros((1, 8, 8, 3), np.float32)}),
        "no inputs": lambda: model.predict({}),
        "huge": lambda: model.predict({"image_bytes": [b"\xff" * too_large]}),
    }
    return rest + [_over_grpc(case, call) for case, call in calls.items() if model.over_grpc]


def _bodies(image: bytes, too_large: int) -> dict[str, bytes]:
    good = b64encode(image).decode()
    return {
        "not JSON": b"{not json",
        "empty body": b"",
        "not an object": b"[1, 2]",
        "wrong key": json.dumps({"images": [{"b64": good}]}).encode(),
        "no instances": json.dumps({"instances": []}).encode(),
        "bad base64": json.dumps({"instances": [{"b64": "%%%"}]}).encode(),
        "not an image": images_body([_NOT_AN_IMAGE]),
        "empty image": images_body([b""]),
        "truncated image": images_body([image[: len(image) // 2]]),
        "one bad image among good ones": images_body([image, _NOT_AN_IMAGE]),
        "unknown signature": json.dumps({"signature_name": "no_such_signature", "instances": [{"b64": good}]}).encode(),
        "wrong type": json.dumps({"instances": [1.5]}).encode(),
        "huge": b'{"instances": ["' + b"A" * too_large + b'"]}',
    }


def _over_rest(model: RemoteModel, case: str, body: bytes) -> Attempt:
    try:
        response = model.post(body)
    except httpx.HTTPError as error:
        return Attempt(case, "REST", f"no answer: {type(error).__name__}: {error}", clean=False)
    text = _error_text(response)
    return Attempt(case, "REST", f"{response.status_code} {_short(text)}", clean=400 <= response.status_code < 500 and bool(text))


def _error_text(response: httpx.Response) -> str:
    try:
        document = response.json()
    except ValueError:
        return ""
    return str(document.get("error", "")) if isinstance(document, dict) else ""


def _over_grpc(case: str, call: Callable[[], Any]) -> Attempt:
    try:
        call()
    except grpc.RpcError as error:
        failure: Any = error
        name, details = failure.code().name, failure.details() or ""
        return Attempt(case, "gRPC", f"{name} {_short(details)}", clean=name in _CODES and bool(details))
    return Attempt(case, "gRPC", "accepted", clean=False)


def _short(text: str, limit: int = 160) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
