"""The server under conformance test: ours, or with --target any TF Serving that serves the tiny model (docs/serving.md)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from serving.client.remote import RemoteModel
from serving.server.config import read_models
from tests.conftest import tiny_jpeg
from tests.serving.harness import RunningServer
from tests.serving.saved_model import export_tiny, write_target


def pytest_addoption(parser: pytest.Parser) -> None:
    """--target host:port (REST), --target-grpc host:port, --target-base /models."""
    parser.addoption("--target", help="REST address of a TF Serving that serves the tiny model; default: the local server")
    parser.addoption("--target-grpc", help="its gRPC address; default: port 8500 of the same host")
    parser.addoption("--target-base", default="/models", help="the folder with the tiny model as that server sees it")


@dataclass(frozen=True)
class Target:
    """The server under test."""

    model: RemoteModel
    base: str
    ours: bool

    def other(self, name: str) -> RemoteModel:
        """A client of another model name on the same server."""
        host, rest = self.model.http.base_url.host, self.model.http.base_url.port
        assert rest
        return RemoteModel(host, rest, 1, name)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's versions 1, 2 and 3, and their models.config."""
    base = tmp_path_factory.mktemp("models")
    write_target(base, str(base))
    return base


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    """The server under test, with versions 1 and 2 loaded and the label stable at 1."""
    address = request.config.getoption("--target", default=None)
    if address:
        host, _, port = str(address).partition(":")
        grpc_host, _, grpc_port = str(request.config.getoption("--target-grpc") or f"{host}:8500").partition(":")
        assert grpc_host == host, "both addresses have to be on one host"
        with RemoteModel(host, int(port), int(grpc_port), "tiny") as model:
            yield Target(model, str(request.config.getoption("--target-base")), ours=False)
        return
    base: Path = request.getfixturevalue("tiny_base")
    from serving.server.options import Options

    options = Options(poll_seconds=0.1, max_load_retries=0, allow_labels_for_unavailable=True)
    with RunningServer(read_models(base / "models.config"), options) as server, server.client() as model:
        yield Target(model, str(base), ours=True)


@pytest.fixture
def model(target: Target) -> RemoteModel:
    """A client of the tiny model."""
    return target.model


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A JPEG whose answer is roses (mostly green)."""
    return tiny_jpeg(1, seed=7)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Copies of the tiny model: `exported(path)` puts one at `path`."""
    import shutil

    source = export_tiny(tmp_path_factory.mktemp("export") / "model")

    def put(path: Path) -> Path:
        shutil.copytree(source, path)
        return path

    return put
