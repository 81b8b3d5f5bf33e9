"""A Kubeflow Pipelines in this process, a pipeline small enough to read, and the command line."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipelines.cli import cli
from tests.kubeflow.fake_kfp import FakeKfp, serving
from tests.kubeflow.records import ships

Dual = Callable[..., Result]
PACKAGE = """\
pipelineInfo: {name: dual-deploy, description: A pair of classifiers.}
root:
  dag: {tasks: {}}
  inputDefinitions:
    parameters:
      data: {parameterType: STRING, description: Where the images are.}
      store: {parameterType: STRING}
      profile: {parameterType: STRING, defaultValue: quick, isOptional: true}
      settings: {parameterType: STRING, defaultValue: "", isOptional: true}
      accelerator_count: {parameterType: NUMBER_INTEGER, defaultValue: 0.0, isOptional: true}
      ratio: {parameterType: NUMBER_DOUBLE, isOptional: true}
      eager: {parameterType: BOOLEAN, isOptional: true}
      node_selector: {parameterType: STRUCT, defaultValue: {}, isOptional: true}
      tolerations: {parameterType: LIST, defaultValue: [], isOptional: true}
deploymentSpec: {executors: {exec-ingest: {container: {image: "registry/dual-trainer@sha256:aa"}}}}
schemaVersion: 2.1.0
---
platforms: {kubernetes: {deploymentSpec: {executors: {}}}}
"""


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [*os.environ]:
        if name.startswith(("DUAL_", "KF_PIPELINES_", "ARGO_", "KUBERNETES_")) and name != "DUAL_SHARED":
            monkeypatch.delenv(name)
    # No cluster, unless a test names one.
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "no-kubeconfig"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def kfp() -> Iterator[FakeKfp]:
    """A single-user installation whose runs ship."""
    fake = FakeKfp()
    fake.state.play = ships
    with serving(fake.answer) as fake.url:
        yield fake


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A compiled pipeline with a parameter of every type."""
    (path := tmp_path / "pipeline.yaml").write_text(PACKAGE)
    return path


@pytest.fixture
def dual(kfp: FakeKfp) -> Dual:
    """The command line, told where the installation is."""

    def run(*words: object, **environment: str) -> Result:
        return CliRunner(env={"DUAL_KFP_HOST": kfp.url, **environment}).invoke(cli, [str(word) for word in words], prog_name="dual")

    return run


@pytest.fixture
def submit(dual: Dual, package: Path, tmp_path: Path) -> Dual:
    """`dual submit` with everything that the package needs."""
    needed = ("--package", package, "--data", "drawn", "--store", tmp_path / "store")

    def run(*words: object, **environment: str) -> Result:
        return dual("submit", *needed, *words, **environment)

    return run
