"""The tiny model as validate_infra has it when it asks a pod, and a namespace for each test."""

import shutil
from pathlib import Path

import pytest

from components.core.record import open_step
from components.validate_infra.asking import Servable
from components.validate_infra.settings import ValidateInfraSettings
from components.validate_infra.validate import Artifacts, make_golden, write_warmups
from tests.cluster.conftest import Cluster
from tests.cluster.infra_check.place import Place, make_place
from tests.serving.tiny_pair import make_artifacts


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory, tiny_examples: Path) -> Artifacts:
    return make_artifacts(tmp_path_factory.mktemp("artifacts"), tiny_examples)


@pytest.fixture(scope="session")
def servable(artifacts: Artifacts, tmp_path_factory: pytest.TempPathFactory) -> Servable:
    root = tmp_path_factory.mktemp("servable")
    with open_step("validate_infra", store=str(root / "store"), run_id="golden") as record:
        golden, images = make_golden(record, artifacts, ValidateInfraSettings(), root / "golden")
    model = shutil.copytree(artifacts.cloud_model / "saved_model", root / "cloud")
    return Servable(model, "classifier", golden, images, write_warmups(model, images, "classifier"))


@pytest.fixture
def place(cluster: Cluster, servable: Servable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Place:
    return make_place(cluster, servable, tmp_path, monkeypatch, request.node.name)
