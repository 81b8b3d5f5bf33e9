"""The command line as a person meets it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipelines.cli import COMMANDS, cli


def _dual(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), prog_name="dual")


def test_help_imports_nothing_heavy() -> None:
    heavy = ["tensorflow", "kfp", "pydantic", "numpy", "matplotlib", "rich", "yaml", "google", "obstore", "PIL"]
    code = (
        "import sys; from pipelines.cli import cli\n"
        "try: cli(['--help'])\nexcept SystemExit: pass\n"
        f"sys.exit(','.join(m for m in {heavy} if m in sys.modules) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert "Train, judge and ship" in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    result = _dual(name, "--help")
    assert result.exit_code == 0
    assert "Usage: dual" in result.output


def test_a_mistyped_command_gets_a_hint() -> None:
    result = _dual("serv")
    assert result.exit_code == 2
    assert "Did you mean 'serve'?" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--data", "x", "--profile", "fast"], ["no profile 'fast'", "quick"]),
        (["run", "--data", "x", "--set", "nonsense"], ["is not key=value"]),
        (["run", "--data", "x", "--set", "train_cloud.image_sise=3"], ["train_cloud.image_sise", "--set"]),
        (["run", "--data", "x", "--set", "seed=abc"], ["seed", "'abc'", "--set"]),
        (["run", "--data", "x", "--config", "missing.yaml"], ["missing.yaml"]),
        (["run", "--data", "x", "--store", "ftp://host/x"], ["ftp://host/x", "is not a store"]),
        (["predict", "x.jpg", "--store", "empty"], ["nothing is promoted yet", "dual run"]),
        (["release", "show", "--store", "empty"], ["nothing is promoted yet"]),
        (["undo", "--store", "empty"], ["nothing"]),
        (["report", "--store", "empty"], ["no runs in this store"]),
        (["settings", "--set", "train_mobile=3"], ["train_mobile", "3"]),
    ],
)
def test_wrong_use_says_what_where_and_exits_2(
    arguments: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = _dual(*arguments)
    assert result.exit_code == 2, result.output
    assert all(word in result.output for word in words), result.output
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == [], "a refused call left something behind"


def test_settings_print_what_a_run_would_start_with() -> None:
    result = _dual("settings", "--json", "--set", "seed=7")
    assert json.loads(result.output)["seed"] == 7


def test_draw_then_check(tmp_path: Path) -> None:
    folder = tmp_path / "drawn"
    drawn = _dual("data", "draw", str(folder), "--images-per-class", "4", "--size", "48")
    assert drawn.exit_code == 0, drawn.output
    assert len(list(folder.rglob("*.jpg"))) == 20
    checked = _dual("data", "check", str(folder), "--json")
    assert checked.exit_code == 0, checked.output
    assert len(json.loads(checked.output)["labels"]) == 5


def test_checking_a_missing_folder_is_bad_data(tmp_path: Path) -> None:
    result = _dual("data", "check", str(tmp_path / "nowhere"))
    assert result.exit_code == 4
    assert "nowhere" in result.output
