"""The cloud model behind the TF-Serving-compatible server, in a process of its own."""

import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np

from components.validate_infra.child import Child, ChildError
from components.validate_infra.golden import Golden
from components.validate_infra.infra import MalformedRequest, Side
from components.validate_infra.malformed import send_malformed
from components.validate_infra.settings import ValidateInfraSettings
from serving.client.remote import RemoteModel, largest_difference

SERVER = "serving.server (stand-in for TensorFlow Serving)"
_REPLAYED = re.compile(r"Number of warmup records read: (\d+)")
_LOAD = re.compile(r"^:tensorflow:cc:saved_model:load_latency\{.*\} (\S+)$", re.MULTILINE)
Answers = list[dict[str, Any]]


def check_cloud(saved_model: Path, golden: Golden, images: Sequence[bytes], work: Path, name: str, settings: ValidateInfraSettings) -> Side:
    """Load the SavedModel into the server and ask it; whatever goes wrong is in the returned `Side`.

    `images` are the golden images' bytes; `work` is a scratch folder. The process is always ended.
    """
    (versions := work / "models").mkdir(parents=True)
    (versions / "1").symlink_to(saved_model.resolve(), target_is_directory=True)
    ready = work / "ready.json"
    limit = settings.max_request_mb << 20
    arguments = [
        *("--model_name", name, "--model_base_path", str(versions), "--port", "0", "--rest_api_port", "0"),
        *("--max_num_load_retries", "0", "--file_system_poll_wait_seconds", "0", "--max_request_bytes", str(limit)),
        *("--ready_file", str(ready), "--drain_seconds", "2"),
    ]
    side = Side()
    with Child("server", "serving.server", arguments, work / "server.log") as child:
        try:
            side.measurements["start_seconds"] = child.wait_for_file(ready, settings.start_timeout)
            ports = json.loads(ready.read_text())
            with RemoteModel(ports["host"], ports["rest_port"], ports["grpc_port"], name, settings.request_timeout) as model:
                ask_cloud(side, model, golden, images, settings)
        except (ChildError, httpx.HTTPError, grpc.RpcError) as error:
            side.failure = _reason(error, child)
        if child.is_alive():
            side.measurements["memory_mb"] = child.peak_memory_mb()
        replayed = _REPLAYED.search(child.log.read_text(errors="replace"))
        side.warmup = (0, int(replayed[1]) if replayed else 0)
        side.log_tail = child.tail()
    return side


def ask_cloud(side: Side, model: RemoteModel, golden: Golden, images: Sequence[bytes], settings: ValidateInfraSettings) -> None:
    """Send the golden images and the malformed requests to a running server, and fill `side` with what came back.

    Raises httpx.HTTPError or grpc.RpcError when a golden image is refused.
    """
    began = time.perf_counter()
    model.classify_rest(images[:1])
    side.measurements["first_ms"] = (time.perf_counter() - began) * 1000
    _compare(side, "REST", _one_by_one(model.classify_rest, images), golden)
    _compare(side, "REST, one batch", model.classify_rest(images), golden)
    _compare(side, "gRPC", model.classify_grpc(images), golden)
    side.measurements |= latency_figures([_timed(model, images[number % len(images)]) for number in range(settings.requests)])
    attempts = send_malformed(model, images[0], (settings.max_request_mb << 20) + 1)
    side.malformed = [MalformedRequest(**vars(attempt)) for attempt in attempts]
    again = model.classify_rest(images)
    tolerance = golden.tolerances.cloud
    side.alive = all(largest_difference(a, each.cloud.probabilities) <= tolerance for a, each in zip(again, golden.images, strict=True))
    if loaded := _LOAD.search(model.http.get("/monitoring/prometheus/metrics").text):
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


def _reason(error: Exception, child: Child) -> str:
    if isinstance(error, ChildError):
        return str(error)
    what = f"{error.code().name} {error.details()}" if isinstance(error, grpc.RpcError) else f"{type(error).__name__}: {error}"  # pyright: ignore
    if isinstance(error, httpx.HTTPStatusError):
        what = f"{error.response.status_code} {error.response.text[:300]}"
    state = "still runs" if child.is_alive() else "has ended"
    return f"the server, which {state}, failed a golden image: {what}. The end of its log: {child.tail(5)}"
