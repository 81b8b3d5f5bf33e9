"""The stores of the conformance suite: a folder, two strict stand-ins over HTTP, and fake-gcs-server where it is present."""

import lzma
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from components.core.stores import Store, open_store
from tests.conftest import SHARED
from tests.store import fake_gcs, fake_s3

BUCKET = "models"
KINDS = ("local", "gcs", "s3", "fake-gcs-server")
Opener = Callable[[], Store]


@pytest.fixture(params=KINDS)
def opener(request: pytest.FixtureRequest) -> Opener:
    """Opens the same store anew each time, as another process would."""
    return request.getfixturevalue(f"{request.param.replace('-', '_')}_opener")


@pytest.fixture
def store(opener: Opener) -> Store:
    return opener()


@pytest.fixture
def local_opener(tmp_path: Path) -> Opener:
    return lambda: open_store(str(tmp_path / "store"))


@pytest.fixture
def gcs_bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_gcs.Bucket]:
    with fake_gcs.fake_gcs() as (address, bucket):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        yield bucket


@pytest.fixture
def gcs_opener(gcs_bucket: fake_gcs.Bucket) -> Opener:
    return lambda: open_store(f"gs://{BUCKET}/team/flowers")


@pytest.fixture
def s3_bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_s3.Bucket]:
    with fake_s3.fake_s3() as (address, bucket):
        values = {"ENDPOINT_URL": address, "ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "REGION": "us-east-1"}
        for name, value in values.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        yield bucket


@pytest.fixture
def s3_opener(s3_bucket: fake_s3.Bucket) -> Opener:
    return lambda: open_store(f"s3://{BUCKET}/team/flowers")


@pytest.fixture(scope="session")
def fake_gcs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running fake-gcs-server with an empty bucket."""
    folder = tmp_path_factory.mktemp("fake-gcs-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    flags = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory", "-public-host", f"127.0.0.1:{port}"]
    with (folder / "log").open("wb") as log, subprocess.Popen([_binary(folder), *flags], stdout=log, stderr=log) as process:
        try:
            _await(address, folder / "log")
            httpx.post(f"{address}/storage/v1/b", json={"name": BUCKET}).raise_for_status()
            yield address
        finally:
            process.terminate()


@pytest.fixture
def fake_gcs_server_opener(fake_gcs_server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Opener:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake_gcs_server)
    # One bucket for all tests: each has its own prefix.
    return lambda: open_store(f"gs://{BUCKET}/{abs(hash(request.node.nodeid))}")


def _binary(folder: Path) -> str:
    installed = shutil.which("fake-gcs-server")
    packed = SHARED / "rig" / "bin" / "fake-gcs-server.xz"
    if installed:
        return installed
    if not packed.is_file():
        message = "needs fake-gcs-server on PATH (a Go module: github.com/fsouza/fake-gcs-server)"
        # Where the shared tools are, CI must not lose this test silently.
        if os.environ.get("CI") == "true" and SHARED.is_dir():
            pytest.fail(message)
        pytest.skip(message)
    path = folder / "fake-gcs-server"
    path.write_bytes(lzma.decompress(packed.read_bytes()))
    path.chmod(0o755)
    return str(path)


def _await(address: str, log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            httpx.get(f"{address}/storage/v1/b", timeout=2)
        except httpx.HTTPError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        else:
            return
