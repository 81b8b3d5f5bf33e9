"""`.ci/run` ends with 0 when every section passed and with 1 when one did not: its sections are stand-ins here."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / ".ci" / "run"


def _script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)


def _checkout(root: Path, make: str = "exit 0", score: str = "exit 0") -> Path:
    for name in (".ci/environment", ".venv/bin/python", ".venv/bin/dual", "bin/chromium"):
        _script(root / name, "exit 0")
    _script(root / "bin" / "make", make)
    _script(root / ".ci" / "kube-score", score)
    shutil.copy(RUN, root / ".ci" / "run")
    return root


def _run(root: Path) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PATH": f"{root / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(root)}
    return subprocess.run([root / ".ci" / "run"], capture_output=True, text=True, timeout=60, env=environment, check=False)


def test_every_section_passed_is_success_and_leaves_nothing(tmp_path: Path) -> None:
    done = _run(_checkout(tmp_path))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "All sections passed.")
    assert not list(tmp_path.glob("tmp.*"))


@pytest.mark.parametrize(
    ("broken", "named"), [({"score": "exit 3"}, "kube-score"), ({"make": '[[ "$1" != test ]]'}, "test"), ({"make": "exit 2"}, "check test")]
)
def test_a_failed_section_of_either_lane_is_named_and_fails_the_whole(tmp_path: Path, broken: "dict[str, str]", named: str) -> None:
    done = _run(_checkout(tmp_path, **broken))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, f"FAILED: {named}")
    assert "crash: passed" in done.stdout
