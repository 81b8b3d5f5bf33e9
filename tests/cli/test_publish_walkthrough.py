"""docs/publish.md, command by command, as a new user types it: against a local store and fake-gcs-server."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.device_site import make_site
from tests.conftest import ROOT, tiny_jpeg
from tests.store.conftest import _binary

pytestmark = pytest.mark.slow
DOCUMENT = (ROOT / "docs" / "publish.md").read_text()
EXPECTED = [
    "the others use",
    "100 % of the devices",
    "(mobile: it was asked for)",
    "10 % of the devices",
    "10 % of the devices, paused",
    "50 % of the devices",
    "three crash reports",
    "refused: everybody has the release of before again",
    "Answering with the release of before",
    "(bad)",
    "old key",
    "garbage mobile/",
    "removed mobile/",
    "ok: every digest matches",
    "copied to gs://models/flowers",
    "refused: a key is required",
    "there is no key to sign",
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a store of two releases and a picture, as the two runs leave it."""
    make_site(tmp_path, 2)
    (tmp_path / "roses.jpg").write_bytes(tiny_jpeg(1, 5))
    return tmp_path


def environment(place: Path, binary: str) -> dict[str, str]:
    (tools := place / "tools").mkdir()
    shutil.copy(binary, tools / "fake-gcs-server")
    (tools / "dual").write_text(f'#!/bin/sh\nexec {sys.executable} -m pipelines.cli "$@"\n')
    (tools / "dual").chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DUAL_", "STORAGE_"))}
    path = f"{tools}:{Path(sys.executable).parent}:{kept['PATH']}"
    return kept | {"PATH": path, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(place / "cache"), "XDG_CONFIG_HOME": str(place / "config")}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_every_command_works_in_order(place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    script = "set -euo pipefail\ntrap 'kill $(jobs -p)' EXIT\n" + "\n".join(blocks("bash")).replace("4443", str(free_port()))
    surroundings = environment(place, _binary(tmp_path_factory.mktemp("emulator")))
    command = ["bash", "-c", script]
    result = subprocess.run(command, cwd=place, env=surroundings, capture_output=True, text=True, timeout=500, check=False)
    said = result.stdout + result.stderr
    assert result.returncode == 0, said
    assert [text for text in EXPECTED if text not in said] == [], said
    (python,) = blocks("python")
    ran = subprocess.run([sys.executable, "-c", python], cwd=place, env=surroundings, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "outcome='installed'" in ran.stdout


def test_what_is_not_run_is_marked() -> None:
    languages = set(re.findall(r"^```(\w+)$", DOCUMENT, re.MULTILINE))
    assert languages == {"bash", "console", "python"}
    assert "Not compiled here".lower() in (ROOT / "docs" / "channel-spec.md").read_text().lower()
