"""A Vertex AI in this process, credentials whose token it takes, a bucket, and the command line."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipelines.cli import cli
from tests.doctor.fake_google import Google, fake_google
from tests.kubeflow.fake_kfp import serving
from tests.kubeflow.records import ships
from tests.store import fake_gcs
from tests.vertex.endpoint_site import EndpointSite, make_site
from tests.vertex.fake_endpoints import FakeEndpoints
from tests.vertex.fake_vertex import REGION, FakeVertex

Dual = Callable[..., Result]
STORE = "gs://models/dual"
PACKAGE = """\
pipelineInfo: {name: dual-deploy, description: A pair of classifiers.}
defaultPipelineRoot: gs://models/root
root:
  dag:
    tasks:
      exit-handler-1: {componentRef: {name: comp-exit-handler-1}, taskInfo: {name: exit-handler-1}}
      report: {componentRef: {name: comp-report}, taskInfo: {name: report}, cachingOptions: {enableCache: true}}
  inputDefinitions:
    parameters:
      data: {parameterType: STRING}
      store: {parameterType: STRING}
      profile: {parameterType: STRING, defaultValue: quick, isOptional: true}
      count: {parameterType: NUMBER_INTEGER, isOptional: true}
components:
  comp-exit-handler-1:
    dag:
      tasks:
        ingest: {componentRef: {name: comp-ingest}, taskInfo: {name: ingest}}
        train-cloud: {componentRef: {name: comp-train-cloud}, taskInfo: {name: train_cloud}}
        evaluate-mobile: {componentRef: {name: comp-train-cloud}, taskInfo: {name: evaluate_mobile}}
        publish-mobile: {componentRef: {name: comp-train-cloud}, taskInfo: {name: publish_mobile}}
  comp-ingest: {executorLabel: exec-ingest}
  comp-train-cloud: {executorLabel: exec-ingest}
  comp-report: {executorLabel: exec-ingest}
deploymentSpec: {executors: {exec-ingest: {container: {image: "registry/dual-trainer@sha256:aa"}}}}
schemaVersion: 2.1.0
"""


@pytest.fixture(autouse=True)
def google(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Google]:
    """Application default credentials of a service account, and nothing of this machine."""
    for name in [*os.environ]:
        if name.startswith(("DUAL_", "GOOGLE_", "CLOUDSDK_")) and name != "DUAL_SHARED":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with fake_google(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Cloud Storage."""
    with fake_gcs.fake_gcs() as (address, _):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        yield


@pytest.fixture
def vertex(bucket: None) -> Iterator[FakeVertex]:
    """A project whose runs ship."""
    fake = FakeVertex(play=ships)
    with serving(fake.answer) as fake.url:
        yield fake


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A compiled pipeline."""
    (path := tmp_path / "pipeline.yaml").write_text(PACKAGE)
    return path


@pytest.fixture
def dual(vertex: FakeVertex) -> Dual:
    """The command line, told where Vertex is."""

    def run(*words: object, **environment: str) -> Result:
        where = {"DUAL_VERTEX_HOST": vertex.url, "DUAL_VERTEX_REGION": REGION, **environment}
        return CliRunner(env=where).invoke(cli, [str(word) for word in words], prog_name="dual")

    return run


@pytest.fixture
def submit(dual: Dual, package: Path) -> Dual:
    """`dual submit` with everything that the package needs."""

    def run(*words: object, **environment: str) -> Result:
        return dual("submit", "--target", "vertex", "--package", package, "--data", "drawn", "--store", STORE, *words, **environment)

    return run


@pytest.fixture
def new_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], EndpointSite]]:
    """Makes a store and a project with no endpoint yet; the newest one is that of the environment."""
    with ExitStack() as stack:

        def make() -> EndpointSite:
            fake = FakeEndpoints()
            fake.url = stack.enter_context(serving(fake.answer))
            monkeypatch.setenv("DUAL_VERTEX_HOST", fake.url)
            monkeypatch.setenv("DUAL_VERTEX_PROJECT", "my-project")
            return make_site(fake, tmp_path / fake.url.rpartition(":")[2])

        yield make


@pytest.fixture
def site(new_site: Callable[[], EndpointSite]) -> EndpointSite:
    """One of them."""
    return new_site()
