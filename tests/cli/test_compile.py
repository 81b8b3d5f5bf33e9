"""dual compile as a person types it."""

import json
import shlex
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from pipelines import compile as compiling
from pipelines.cli import cli
from tests.conftest import ROOT


def _dual(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["compile", *arguments], prog_name="dual")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _build(folder: Path, *more: str) -> None:
    names = ("dual-trainer", "dual-deployer", *more)
    images = [{"imageName": name, "tag": f"r/{name}:v1@sha256:{'0' * 64}"} for name in names]
    (folder / "build.json").write_text(json.dumps({"builds": images}))


def test_a_package_for_kubeflow_with_pinned_images_and_a_site(here: Path) -> None:
    _build(here)
    (here / "site.yaml").write_text("kubeflow: {labels: {team: vision}}\n")
    result = _dual("--target", "kubeflow", "--images", "build.json", "--config", "site.yaml", "-o", "out/pipeline.yaml", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["images"] == {name: f"r/{name}:v1@sha256:{'0' * 64}" for name in ("dual-deployer", "dual-trainer")}
    written = (here / "out" / "pipeline.yaml").read_text()
    assert "team: vision" in written
    assert len(list(yaml.safe_load_all(written))) == 2
    assert [path.name for path in (here / "out").iterdir()] == ["pipeline.yaml"]


def test_without_images_it_warns(here: Path) -> None:
    result = _dual("--target", "kubeflow")
    assert result.exit_code == 0, result.output
    assert "no cluster can pull dual-deployer, dual-trainer" in result.stderr
    assert (here / "dual-kubeflow.yaml").is_file()


def test_this_machine_pulls_nothing_so_there_is_no_warning(here: Path) -> None:
    result = _dual("--target", "local")
    assert (result.exit_code, result.stderr) == (0, "")


def test_by_registry_and_tag(here: Path) -> None:
    result = _dual("--target", "vertex", "--registry", "europe-docker.pkg.dev/p/r", "--tag", "v2")
    assert result.exit_code == 0, result.output
    assert "dual-trainer → europe-docker.pkg.dev/p/r/dual-trainer:v2" in result.stdout
    assert "warning" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--target", "kubeflow, vertex or local"]),
        (["--target", "airflow"], ["airflow", "kubeflow"]),
        (["--target", "vertex", "--registry", "r"], ["--registry, --tag", "belong together"]),
        (["--target", "vertex", "--registry", "r", "--tag", "t", "--images", "b.json"], ["Give one of them"]),
        (["--target", "vertex", "--images", "missing.json"], ["missing.json"]),
        (["--target", "vertex", "--config", "missing.yaml"], ["missing.yaml"]),
        (["--check", "--config", "site.yaml"], ["--check", "no site"]),
    ],
)
def test_wrong_use_says_what_where_and_exits_2(arguments: list[str], words: list[str], here: Path) -> None:
    result = _dual(*arguments)
    assert result.exit_code == 2, result.output
    assert all(word in result.output for word in words), result.output
    assert "Traceback" not in result.output
    assert list(here.iterdir()) == []


def _documented() -> list[str]:
    """Every `dual compile` in docs/targets.md, and in the comments of the sites that it names; continued lines joined, comments cut."""
    pages = [ROOT / "docs" / "targets.md", *sorted((ROOT / "docs" / "sites").glob("*.yaml"))]
    lines = [line.lstrip("# ").partition("   #")[0].strip() for page in pages for line in page.read_text().splitlines()]
    return [line for line in lines if line.startswith("dual compile ")]


@pytest.mark.parametrize("line", _documented())
def test_documented_commands_work_as_they_are_written(line: str, here: Path) -> None:
    _build(here, "dual-trainer-gpu")
    (here / "docs").symlink_to(ROOT / "docs")
    result = _dual(*shlex.split(line)[2:])
    assert result.exit_code == 0, result.output
    assert "warning" not in result.output


def test_there_are_documented_commands() -> None:
    assert len(_documented()) >= 6


def test_check_is_quiet_while_the_copies_are_current() -> None:
    result = _dual("--check")
    assert (result.exit_code, result.output) == (0, "")


@pytest.fixture
def stale(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copies of which Kubeflow's is out of date."""
    copies = here / "compiled"
    copies.mkdir()
    for path in compiling.GOLDEN.glob("*.yaml"):
        old, new = "train_cloud_model(record", "train_cloud_model(old"
        (copies / path.name).write_text(path.read_text().replace(old, new) if path.stem == "kubeflow" else path.read_text())
    monkeypatch.setattr(compiling, "GOLDEN", copies)
    return copies


def test_check_prints_the_difference_and_exits_1(stale: Path) -> None:
    before = (stale / "kubeflow.yaml").read_text()
    result = _dual("--check")
    assert result.exit_code == 1
    changed = [line.replace(" ", "") for line in result.stdout.splitlines() if line.startswith(("+ ", "- "))]
    assert [line.partition(",")[0] for line in changed] == ["-train_cloud_model(old", "+train_cloud_model(record"]
    assert "out of date: kubeflow.yaml" in result.stderr
    assert (stale / "kubeflow.yaml").read_text() == before
    assert _dual("--check", "--target", "vertex").exit_code == 0


def test_golden_writes_them_anew_and_shows_what_changed(stale: Path) -> None:
    result = _dual("--golden")
    assert result.exit_code == 0, result.output
    assert "train_cloud_model(old" in result.stdout
    assert _dual("--check").exit_code == 0


def test_compiling_says_that_a_copy_is_out_of_date(stale: Path) -> None:
    result = _dual("--target", "kubeflow", "-o", "new.yaml")
    assert result.exit_code == 0
    assert "train_cloud_model(old" in result.stderr
    assert "dual compile --golden" in result.stderr
