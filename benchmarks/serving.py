"""The local server against direct calls of the same SavedModel, on one machine: p50, p99 and throughput.

    python -m benchmarks.serving [--saved-model DIR] [--images DIR] [--json FILE]

Server, direct calls and client are three processes; everything stays on the loopback. Clients wait for each answer before they ask
again, so 8 clients have at most 8 images in flight: the direct calls that they are compared with are batches of 8. Without
--saved-model a MobileNetV3-Small of 224 px with random weights is exported (the times are right, its answers are not).
"""

import argparse
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

TARGET = 0.7
_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_CLIENTS = (1, 8)
_BATCHES = (1, 8, 32)
_START_SECONDS = 180.0
Ask = Callable[[int], None]


def main() -> int:
    """Measure, print, and return 0 if the target was met, else 1."""
    options = _options()
    if options.prepare:
        _prepare(options)
        return 0
    if options.direct:
        print(json.dumps(_direct(options.saved_model, options.work, options.requests)))
        return 0
    with tempfile.TemporaryDirectory(prefix="dual-bench-") as folder:
        result = _measure(options, Path(folder))
    print(_table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    return 0 if result["met"] else 1


def _measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    _python("--prepare", "--work", str(work), *_given(options))
    saved_model = options.saved_model or work / "models" / "1"
    direct = ["--direct", "--saved-model", str(saved_model), "--work", str(work), "--requests", str(options.requests)]
    # Before and after: what else the machine does must not favour one side.
    before = json.loads(_python(*direct))
    served = _served(saved_model, work, options.requests)
    after = json.loads(_python(*direct))
    calls = {name: _middle(before[name], after[name]) for name in before}
    ratios = {name: row["per_second"] / calls["batch 8"]["per_second"] for name, row in served.items() if "8 clients" in name}
    return {
        "model": str(options.saved_model or "MobileNetV3-Small 224 px, random weights"),
        "cores": os.cpu_count(),
        "requests": options.requests,
        "direct": calls,
        "served": served,
        "share_of_direct_at_8": {name: round(ratio, 3) for name, ratio in ratios.items()},
        "target": TARGET,
        "met": min(ratios.values()) >= TARGET,
    }


def _served(saved_model: Path, work: Path, requests: int) -> dict[str, dict[str, float]]:
    base = work / "served"
    base.mkdir()
    (base / "1").symlink_to(saved_model.resolve(), target_is_directory=True)
    ready = work / "ready.json"
    flags = ["--model_name=m", f"--model_base_path={base}", "--port=0", "--rest_api_port=0", f"--ready_file={ready}"]
    with (work / "server.log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-m", "serving.server", *flags], stderr=log)
    try:
        ports = _await(server, ready, work / "server.log")
        clients = {"REST": _rest_client(ports, work), "gRPC": _grpc_client(ports, work)}
        for make in clients.values():
            _load(make, max(_CLIENTS), 8 * max(_CLIENTS))
        return {
            f"{name}, {count} client{'s' if count > 1 else ''}": _load(make, count, requests)
            for name, make in clients.items()
            for count in _CLIENTS
        }
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def _await(server: subprocess.Popen[bytes], ready: Path, log: Path) -> dict[str, Any]:
    deadline = time.monotonic() + _START_SECONDS
    while not ready.exists():
        if server.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the server did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.05)
    return json.loads(ready.read_text())


def _load(make: Callable[[], Ask], clients: int, requests: int) -> dict[str, float]:
    """`clients` threads with a connection each share `requests` requests; latencies in milliseconds."""
    latencies: list[float] = []
    numbers = iter(range(requests))
    lock = threading.Lock()

    def work() -> None:
        ask = make()
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            began = time.perf_counter()
            ask(number)
            latencies.append((time.perf_counter() - began) * 1000)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(latencies) != requests:
        raise SystemExit("some requests failed; see the error above")
    return _figures(latencies, requests / (time.perf_counter() - began))


def _rest_client(ports: dict[str, Any], work: Path) -> Callable[[], Ask]:
    images = _images(work)
    bodies = [json.dumps({"instances": [{"b64": b64encode(image).decode()}]}).encode() for image in images]

    def make() -> Ask:
        connection = http.client.HTTPConnection(ports["host"], ports["rest_port"], timeout=60)

        def ask(number: int) -> None:
            connection.request("POST", "/v1/models/m:predict", bodies[number % len(bodies)])
            response = connection.getresponse()
            text = response.read()
            if response.status != 200:
                raise RuntimeError(text[:200])

        return ask

    return make


def _grpc_client(ports: dict[str, Any], work: Path) -> Callable[[], Ask]:
    import grpc

    requests = [path.read_bytes() for path in sorted(work.glob("request-*.pb"))]

    def make() -> Ask:
        channel: Any = grpc.insecure_channel(f"{ports['host']}:{ports['grpc_port']}", options=[("grpc.use_local_subchannel_pool", 1)])
        call = channel.unary_unary(_PREDICT)
        return lambda number: call(requests[number % len(requests)], timeout=60) and None

    return make


def _direct(saved_model: Path, work: Path, requests: int) -> dict[str, dict[str, float]]:
    """The serving signature called in this process, as a batch job would."""
    import tensorflow as tf

    loaded: Any = tf.saved_model.load(str(saved_model))
    call = loaded.signatures["serving_default"]
    images = _images(work)
    result = {}
    for size in _BATCHES:
        batches = [tf.constant([images[(start + i) % len(images)] for i in range(size)]) for start in range(0, requests, size)]
        for batch in batches[:3]:
            call(image_bytes=batch)
        latencies = []
        for batch in batches:
            began = time.perf_counter()
            call(image_bytes=batch)["probabilities"].numpy()
            latencies.append((time.perf_counter() - began) * 1000)
        result[f"batch {size}"] = _figures(latencies, size * len(batches) / sum(latencies) * 1000)
    return result


def _prepare(options: argparse.Namespace) -> None:
    from serving.server.warmup import predict_request

    if options.saved_model is None:
        _export(options.work / "models" / "1")
    images = (
        sorted(path for path in options.images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")) if options.images else []
    )
    for number, image in enumerate([path.read_bytes() for path in images[:32]] or _drawn(32)):
        (options.work / f"image-{number:02}").write_bytes(image)
        (options.work / f"request-{number:02}.pb").write_bytes(predict_request("m", {"image_bytes": [image]}).SerializeToString())


def _export(folder: Path) -> None:
    import keras

    from components.core.preprocessing import Preprocessing
    from components.training.export import export_saved_model

    make: Any = keras.applications.MobileNetV3Small
    network = make(input_shape=(224, 224, 3), weights=None, classes=5)
    export_saved_model(network, ["a", "b", "c", "d", "e"], Preprocessing(height=224, width=224), folder)


def _drawn(count: int) -> list[bytes]:
    import io

    import numpy as np
    from PIL import Image

    random = np.random.default_rng(1)
    images = []
    for _ in range(count):
        small = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        small.resize((320, 240), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        images.append(buffer.getvalue())
    return images


def _images(work: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(work.glob("image-*"))]


def _figures(latencies: Sequence[float], per_second: float) -> dict[str, float]:
    ordered = sorted(latencies)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return {"p50_ms": round(statistics.median(ordered), 2), "p99_ms": round(p99, 2), "per_second": round(per_second, 1)}


def _middle(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
    return {name: round((a[name] + b[name]) / 2, 2) for name in a}


def _table(result: dict[str, Any]) -> str:
    lines = [f"{result['model']}; {result['cores']} cores, {result['requests']} requests each", ""]
    lines.append(f"{'':22}{'p50 ms':>10}{'p99 ms':>10}{'images/s':>12}")
    for name, row in [*((f"direct, {n}", r) for n, r in result["direct"].items()), *result["served"].items()]:
        lines.append(f"{name:22}{row['p50_ms']:>10.1f}{row['p99_ms']:>10.1f}{row['per_second']:>12.1f}")
    shares = ", ".join(f"{name}: {share:.2f}" for name, share in result["share_of_direct_at_8"].items())
    lines += ["", f"share of direct calls in batches of 8: {shares} (target {TARGET}: {'met' if result['met'] else 'MISSED'})"]
    return "\n".join(lines)


def _python(*arguments: str) -> str:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "benchmarks.serving", *arguments]
    done = subprocess.run(command, capture_output=True, env=environment, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def _given(options: argparse.Namespace) -> list[str]:
    given = [("--saved-model", options.saved_model), ("--images", options.images)]
    return [text for flag, path in given if path for text in (flag, str(path))]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saved-model", type=Path, help="a SavedModel with the signature image_bytes → probabilities")
    parser.add_argument("--images", type=Path, help="a folder with JPEG or PNG images to send; default: drawn ones of 320×240")
    parser.add_argument("--requests", type=int, default=400, help="requests of each measurement")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--direct", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
