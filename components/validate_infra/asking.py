"""What a server is asked, wherever it runs: the golden images, malformed requests, the golden images again; and what it tells of itself."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np

from components.validate_infra.golden import Golden
from components.validate_infra.infra import MalformedRequest, Side
from components.validate_infra.malformed import send_malformed
from components.validate_infra.settings import ValidateInfraSettings
from serving.client.remote import RemoteModel, largest_difference

_REPLAYED = re.compile(r"Number of warmup records read: (\d+)")
_LOAD = re.compile(r"^:tensorflow:cc:saved_model:load_latency\{.*\} (\S+)$", re.MULTILINE)
_WARMED = re.compile(r'^:tensorflow:serving:model_warmup_latency_count\{.*status="OK".*\} [1-9]', re.MULTILINE)
Answers = list[dict[str, Any]]
ASKING_ERRORS = (httpx.HTTPError, grpc.RpcError)
"""How a refused golden image comes out."""


@dataclass(frozen=True)
class Servable:
    """The SavedModel as it is to be released, and what it is to be asked."""

    saved_model: Path
    name: str
    """Of the served model."""
    golden: Golden
    images: Sequence[bytes]
    """The golden images, encoded."""
    warmups: int
    """Requests in its warm-up file."""


def ask_cloud(side: Side, model: RemoteModel, golden: Golden, images: Sequence[bytes], settings: ValidateInfraSettings) -> None:
    """Send the golden images and the malformed requests to a running server, and fill `side` with what came back.

    Raises httpx.HTTPError or grpc.RpcError when a golden image is refused.
    """
    began = time.perf_counter()
    model.classify_rest(images[:1])
    side.measurements["first_ms"] = (time.perf_counter() - began) * 1000
    _compare(side, "REST", _one_by_one(model.classify_rest, images), golden)
    _compare(side, "REST, one batch", model.classify_rest(images), golden)
    if model.over_grpc:
        _compare(side, "gRPC", model.classify_grpc(images), golden)
    side.measurements |= latency_figures([_timed(model, images[number % len(images)]) for number in range(settings.requests)])
    attempts = send_malformed(model, images[0], (settings.max_request_mb << 20) + 1)
    side.malformed = [MalformedRequest(**vars(attempt)) for attempt in attempts]
    again = model.classify_rest(images)
    tolerance = golden.tolerances.cloud
    side.alive = all(largest_difference(a, each.cloud.probabilities) <= tolerance for a, each in zip(again, golden.images, strict=True))
    if loaded := _LOAD.search(metrics_page(model)):
        side.measurements["load_seconds"] = float(loaded[1]) / 1e6


def _one_by_one(classify: Callable[[Sequence[bytes]], Answers], images: Sequence[bytes]) -> Answers:
    return [classify([image])[0] for image in images]


def _compare(side: Side, protocol: str, answers: Answers, golden: Golden) -> None:
    pairs = list(zip(answers, golden.images, strict=True))
    side.differences[protocol] = [largest_difference(answer, each.cloud.probabilities) for answer, each in pairs]
    tolerance = golden.tolerances.cloud
    side.mistaken[protocol] = [e.file for a, e in pairs if a.get("label") != e.cloud.label and not _tied(e.cloud.probabilities, tolerance)]


def _tied(probabilities: Sequence[float], tolerance: float) -> bool:
    # Two classes closer than the tolerance may change places without any fault.
    best = sorted(probabilities)[-2:]
    return len(best) == 2 and best[1] - best[0] <= 2 * tolerance


def _timed(model: RemoteModel, image: bytes) -> float:
    began = time.perf_counter()
    model.classify_rest([image])
    return (time.perf_counter() - began) * 1000


def latency_figures(milliseconds: Sequence[float]) -> dict[str, float]:
    """p50_ms and p99_ms of some latencies."""
    return {f"p{q}_ms": float(np.percentile(milliseconds, q)) for q in (50, 99)}


def metrics_page(model: RemoteModel) -> str:
    """The server's own metrics, in Prometheus' text format; something else where it has none."""
    return model.http.get("/monitoring/prometheus/metrics").text


def replayed_warmups(log: str, page: str, written: int) -> int:
    """How many warm-up requests the server replayed: by its log, or (where INFO is silenced) all if its metrics say that it was OK."""
    if found := _REPLAYED.search(log):
        return int(found[1])
    return written if _WARMED.search(page) else 0


def refusal(error: Exception) -> str:
    """An error of the asking in words: the status and what the server says."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"{error.response.status_code} {error.response.text[:300]}"
    if isinstance(error, grpc.RpcError):
        failure: Any = error
        return f"{failure.code().name} {failure.details()}"
    return f"{type(error).__name__}: {error}"
