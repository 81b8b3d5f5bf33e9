"""The contract between Vertex AI and the container of this project's server: variables, routes, `instances` and `predictions`."""

import json
import re
from base64 import b64encode
from pathlib import Path

import httpx
import pytest

from components.core.errors import UsageError
from components.core.stores import open_store
from serving.rollout.endpoint.bodies import container_spec
from serving.rollout.endpoint.settings import Container
from serving.server.__main__ import _models, _options, _parser
from tests.conftest import tiny_jpeg
from tests.serving.harness import RunningServer
from tests.serving.rollout_site import make_real_releases
from tests.serving.saved_model import TINY_LABELS
from tests.store.fake_gcs import fake_gcs


def test_the_server_serves_what_vertex_hands_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, (release,) = make_real_releases(tmp_path, 1)
    spec = container_spec(Container(server="dual-server", image="x"), "classifier")
    with fake_gcs() as (address, _):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        # Vertex copies what artifactUri names to a bucket of its own.
        folder = release.cloud_folder().rpartition("/")[0]
        store.get_tree(folder, tmp_path / "artifacts")
        open_store("gs://caip-tenant").put_tree("model", tmp_path / "artifacts")
        variables = {"AIP_HTTP_PORT": str(spec["ports"][0]["containerPort"]), "AIP_STORAGE_URI": "gs://caip-tenant/model"}
        filled = [re.sub(r"\$\((\w+)\)", lambda match: variables[match[1]], each) for each in [*spec["command"][3:], *spec["args"]]]
        assert "--host=0.0.0.0" in filled
        assert "--rest_api_port=8501" in filled
        # Any free port: another server of the tests may have that one.
        parsed = _parser().parse_args([*filled, "--rest_api_port=0", "--port=0", "--host=127.0.0.1"])
        config = _models(parsed)
    with RunningServer(config, _options(parsed)) as server:
        at = f"http://127.0.0.1:{server.ports.rest_port}"
        assert httpx.get(at + spec["healthRoute"]).status_code == 200
        body = {"instances": [{"b64": b64encode(tiny_jpeg(1, seed=1)).decode()}]}
        answer = httpx.post(at + spec["predictRoute"], content=json.dumps(body), headers={"Content-Type": "application/json"})
        (prediction,) = answer.json()["predictions"]
        assert prediction["label"] in TINY_LABELS
        assert len(prediction["probabilities"]) == len(TINY_LABELS)


def test_nothing_in_the_bucket_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_gcs() as (address, _):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        with pytest.raises(UsageError, match="there is no model"):
            _models(_parser().parse_args(["--model_base_path=gs://models/none"]))


def test_containers_of_vertex_get_neither_command_nor_routes() -> None:
    assert container_spec(Container(server="prebuilt", image="tf2-cpu.2-15"), "classifier") == {"imageUri": "tf2-cpu.2-15"}
