"""What our server does beyond answering: versions come and go, limits hold, it warms up, drains and says what it is."""

import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from components.core.errors import DualError, UsageError
from serving.client.remote import RemoteModel, images_body
from serving.server.__main__ import main
from serving.server.config import read_batching, read_models, read_monitoring, single_model
from serving.server.options import Batching, Options
from serving.server.warmup import WARMUP_FILE, predict_request, write_warmup
from tests.serving.harness import RunningServer, tiny_config

Exported = Callable[[Path], Path]
DOUBLE = json.dumps({"signature_name": "double", "instances": [[1.0, 2.0]]}).encode()


def options(**changes: Any) -> Options:
    return Options(**({"poll_seconds": 0.1, "max_load_retries": 0} | changes))


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def states(model: RemoteModel) -> dict[str, str]:
    response = model.http.get(model.path())
    found = response.json().get("model_version_status", [])
    return {entry["version"]: entry["state"] for entry in found}


def test_a_new_version_is_found_and_serves_before_the_old_one_goes(exported: Exported, tmp_path: Path) -> None:
    exported(tmp_path / "tiny" / "1")
    with RunningServer(tiny_config(tmp_path / "tiny")) as server, server.client() as model:
        assert states(model) == {"1": "AVAILABLE"}
        exported(tmp_path / "incoming").rename(tmp_path / "tiny" / "2")
        seen = []
        until(lambda: seen.append(states(model)) or seen[-1] == {"2": "AVAILABLE", "1": "END"})
        assert all("AVAILABLE" in each.values() for each in seen)
        assert model.post(DOUBLE).status_code == 200


def test_a_broken_new_version_leaves_the_old_one_serving(exported: Exported, tmp_path: Path) -> None:
    exported(tmp_path / "tiny" / "1")
    with RunningServer(tiny_config(tmp_path / "tiny")) as server, server.client() as model:
        (tmp_path / "tiny" / "2").mkdir()
        until(lambda: states(model).get("2") == "END")
        entry = model.http.get(model.path(2)).json()["model_version_status"][0]
        assert entry["status"]["error_code"] != "OK"
        assert entry["status"]["error_message"]
        assert states(model)["1"] == "AVAILABLE"
        assert model.post(DOUBLE).status_code == 200


def test_the_policy_all_loads_every_version_and_a_removed_one_goes(exported: Exported, tmp_path: Path) -> None:
    for version in (1, 2):
        exported(tmp_path / "tiny" / str(version))
    (tmp_path / "tiny" / "not-a-version").mkdir()
    config = tiny_config(tmp_path / "tiny")
    config.model_config_list.config[0].model_version_policy.all.SetInParent()
    with RunningServer(config) as server, server.client() as model:
        until(lambda: states(model) == {"2": "AVAILABLE", "1": "AVAILABLE"})
        shutil.rmtree(tmp_path / "tiny" / "2")
        until(lambda: states(model) == {"2": "END", "1": "AVAILABLE"})


def test_before_anything_is_loaded_status_is_200_and_metadata_404(tmp_path: Path) -> None:
    (tmp_path / "tiny" / "1").mkdir(parents=True)
    config = tiny_config(tmp_path / "tiny")
    slow = options(max_load_retries=1000, load_retry_seconds=0.2)
    with RunningServer(config, slow, await_models=False) as server, server.client() as model:
        until(lambda: states(model) == {"1": "LOADING"})
        assert model.http.get(model.path()).status_code == 200
        assert model.http.get(f"{model.path()}/metadata").status_code == 404
        assert model.post(DOUBLE).json() == {"error": "Servable not found for request: Latest(tiny)"}
        assert health(model) == health_pb2.HealthCheckResponse.NOT_SERVING


def test_a_failed_load_is_tried_again(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "tiny" / "1").mkdir(parents=True)
    patient = options(max_load_retries=1000, load_retry_seconds=0.1)
    with RunningServer(tiny_config(tmp_path / "tiny"), patient, await_models=False) as server, server.client() as model:
        until(lambda: states(model) == {"1": "LOADING"})
        (tmp_path / "tiny" / "1").rmdir()
        exported(tmp_path / "tiny" / "1")
        until(lambda: states(model) == {"1": "AVAILABLE"})
        until(lambda: health(model) == health_pb2.HealthCheckResponse.SERVING)


def health(model: RemoteModel) -> int:
    return health_pb2_grpc.HealthStub(model.channel).Check(health_pb2.HealthCheckRequest(), timeout=10).status


def test_a_model_that_cannot_be_loaded_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "tiny" / "1").mkdir(parents=True)
    with pytest.raises(DualError, match=r"Failed to start server.*did not become available.*name: tiny version: 1"):
        RunningServer(tiny_config(tmp_path / "tiny"))


def test_labels_at_the_start_need_the_flag(exported: Exported, tmp_path: Path) -> None:
    exported(tmp_path / "tiny" / "1")
    config = tiny_config(tmp_path / "tiny")
    config.model_config_list.config[0].version_labels["stable"] = 1
    with pytest.raises(UsageError, match="Request to assign label to version 1 of model tiny, which is not currently available"):
        RunningServer(config)
    with RunningServer(config, options(allow_labels_for_unavailable=True)) as server, server.client() as model:
        assert model.post(DOUBLE, "stable").status_code == 200


def test_the_warmup_file_is_replayed_before_the_version_is_available(exported: Exported, photo: bytes, tmp_path: Path) -> None:
    path = exported(tmp_path / "tiny" / "1")
    write_warmup(
        path, [predict_request("tiny", {"image_bytes": [photo]}), predict_request("tiny", {"x": np.ones((2, 2), np.float32)}, "double")]
    )
    with RunningServer(tiny_config(tmp_path / "tiny")) as server, server.client() as model:
        page = model.http.get("/monitoring/prometheus/metrics").text
        assert f':tensorflow:serving:model_warmup_latency_count{{model_path="{path}",status="OK"}} 1' in page
        # A replayed request is no client's request.
        assert "request_count" not in page


def test_a_warmup_request_that_fails_fails_the_load(exported: Exported, tmp_path: Path) -> None:
    path = exported(tmp_path / "tiny" / "1")
    write_warmup(path, [predict_request("tiny", {"image_bytes": [b"no image"]})])
    with pytest.raises(DualError, match="warm-up request 1 failed: "):
        RunningServer(tiny_config(tmp_path / "tiny"))
    (path / WARMUP_FILE).write_bytes(b"no TFRecord at all")
    with pytest.raises(DualError, match="did not become available"):
        RunningServer(tiny_config(tmp_path / "tiny"))


def test_more_than_a_thousand_warmup_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at most 1000"):
        write_warmup(tmp_path, [predict_request("tiny", {"x": [1.0]})] * 1001)


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory, exported: Exported) -> Any:
    base = tmp_path_factory.mktemp("limited")
    exported(base / "1")
    limits = options(max_request_bytes=100_000, max_in_flight=4, batching=Batching(max_batch_size=8), rest_timeout_seconds=20)
    with RunningServer(tiny_config(base), limits) as server:
        server.slow_down(0.4)
        yield server


def test_a_request_that_is_too_large_is_413_or_resource_exhausted(limited: RunningServer) -> None:
    with limited.client() as model:
        response = model.post(b'{"instances": ["' + b"x" * 200_000 + b'"]}')
        assert (response.status_code, response.json()) == (413, {"error": "the request body is larger than 100000 bytes"})
        response = model.http.post(f"{model.path()}:predict", content=iter([b"x" * 60_000] * 3))
        assert response.status_code == 413
        with pytest.raises(grpc.RpcError) as caught:
            model.predict({"image_bytes": [b"x" * 200_000]})
        failure: Any = caught.value
        assert failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_gzip_bodies_are_unpacked_within_the_limit(limited: RunningServer) -> None:
    with limited.client() as model:
        headers = {"content-encoding": "gzip"}
        assert model.http.post(f"{model.path()}:predict", content=gzip.compress(DOUBLE), headers=headers).status_code == 200
        bomb = gzip.compress(b" " * 50_000_000)
        assert model.http.post(f"{model.path()}:predict", content=bomb, headers=headers).status_code == 413
        assert model.http.post(f"{model.path()}:predict", content=b"no gzip", headers=headers).status_code == 400


def test_too_many_requests_at_once_are_429_and_the_others_are_answered(limited: RunningServer) -> None:
    def ask(_: int) -> int:
        with limited.client() as model:
            return model.post(DOUBLE).status_code

    with ThreadPoolExecutor(10) as pool:
        codes = list(pool.map(ask, range(10)))
    assert codes.count(200) >= 4
    assert set(codes) == {200, 429}


def test_requests_that_wait_together_run_together(limited: RunningServer, photo: bytes) -> None:
    def runs() -> int:
        page = limited.server.metrics.page()
        line = next((line for line in page.splitlines() if "runtime_latency_count" in line), "x 0")
        return int(line.split()[-1])

    before = runs()

    def ask(image: bytes) -> int:
        with limited.client() as model:
            return model.post(images_body([image])).status_code

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, [photo] * 4)) == [200] * 4
    assert runs() - before <= 3


def test_a_request_in_progress_is_answered_while_the_server_drains(exported: Exported, tmp_path: Path) -> None:
    exported(tmp_path / "tiny" / "1")
    server = RunningServer(tiny_config(tmp_path / "tiny"))
    server.slow_down(0.7)
    codes: list[Any] = []

    def over_rest() -> None:
        with server.client() as model:
            codes.append(model.post(DOUBLE).status_code)

    def over_grpc() -> None:
        with server.client() as model:
            codes.append(model.predict({"x": np.ones((1, 2), np.float32)}, "double")["y"].tolist())

    threads = [threading.Thread(target=each) for each in (over_rest, over_grpc)]
    for thread in threads:
        thread.start()
    until(lambda: server.server._service.in_flight == 2)
    server.stop()
    for thread in threads:
        thread.join()
    assert sorted(codes, key=str) == [200, [[2.0, 2.0]]]
    with pytest.raises(OSError):  # noqa: PT011
        socket.create_connection((server.ports.host, server.ports.rest_port or 0), timeout=2)


def test_a_request_that_takes_too_long_is_504(exported: Exported, tmp_path: Path) -> None:
    exported(tmp_path / "tiny" / "1")
    with RunningServer(tiny_config(tmp_path / "tiny"), options(rest_timeout_seconds=0.3)) as server, server.client() as model:
        assert model.post(DOUBLE).status_code == 200
        server.slow_down(1.0)
        response = model.post(DOUBLE)
        assert (response.status_code, response.json()) == (504, {"error": "the request took longer than 0.3 s"})


def test_it_says_that_it_is_a_stand_in(limited: RunningServer) -> None:
    with limited.client() as model:
        assert "stand-in for TensorFlow Serving" in model.http.get(model.path()).headers["server"]
        call = model.prediction.Predict.with_call(model.request({"x": np.ones((1, 2), np.float32)}, "double"), timeout=30)[1]
        assert "stand-in for TensorFlow Serving" in dict(call.trailing_metadata())["server"]


def test_a_taken_port_is_a_usage_error(exported: Exported, tmp_path: Path) -> None:
    exported(tmp_path / "tiny" / "1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for changes in ({"rest_port": port}, {"grpc_port": port}):
            with pytest.raises(UsageError, match=f"can't listen at 127.0.0.1:{port}"):
                RunningServer(tiny_config(tmp_path / "tiny"), options(**changes))


def test_tf_servings_configuration_files(tmp_path: Path) -> None:
    (tmp_path / "monitoring").write_text('prometheus_config { enable: true path: "/m" }')
    assert read_monitoring(tmp_path / "monitoring") == "/m"
    (tmp_path / "monitoring").write_text("prometheus_config { enable: false }")
    assert read_monitoring(tmp_path / "monitoring") is None
    (tmp_path / "batching").write_text("max_batch_size { value: 64 } batch_timeout_micros { value: 0 } num_batch_threads { value: 2 }")
    assert read_batching(tmp_path / "batching") == Batching(max_batch_size=64, timeout_micros=0)
    (tmp_path / "models").write_text('model_config_list { config { name: "a" base_path: "/a" } }')
    assert read_models(tmp_path / "models").model_config_list.config[0].base_path == "/a"
    (tmp_path / "models").write_text("model_config_list { config { nam: 'a' } }")
    with pytest.raises(UsageError, match=r"(?s)--model_config_file .*models: is not a valid text-format file: 1:30.*nam"):
        read_models(tmp_path / "models")


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ([], "neither --model_base_path nor --model_config_file is given"),
        (["--model_config_file=/nowhere/models.config"], "can't be read"),
        (["--model_base_path=/tmp", "--batching_parameters_file=/nowhere/b"], "can't be read"),
    ],
)
def test_bad_flags_are_usage_errors(flags: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(flags) == 2
    assert text in capsys.readouterr().err


def test_a_config_without_a_base_path_is_refused() -> None:
    with pytest.raises(UsageError, match="Expected model tiny to have a base_path"):
        RunningServer(single_model("tiny", ""))


def test_sigterm_drains_and_ends_with_zero(exported: Exported, tmp_path: Path) -> None:
    exported(tmp_path / "tiny" / "1")
    ready = tmp_path / "ready.json"
    flags = [f"--model_base_path={tmp_path / 'tiny'}", "--model_name=tiny", "--port=0", "--rest_api_port=0", f"--ready_file={ready}"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "serving.server", *flags, "--flush_filesystem_caches=true"], stderr=log)
    try:
        until(ready.exists, 60)
        ports = json.loads(ready.read_text())
        assert ports["pid"] == process.pid
        with RemoteModel("127.0.0.1", ports["rest_port"], ports["grpc_port"], "tiny") as model:
            assert model.post(DOUBLE).status_code == 200
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
    log_text = (tmp_path / "log").read_text()
    assert "stand-in for TensorFlow Serving" in log_text
    assert "--flush_filesystem_caches has no effect in this stand-in" in log_text
    assert "serving.server] stopped" in log_text
