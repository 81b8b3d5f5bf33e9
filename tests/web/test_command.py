"""`dual web` as a process: it says where the page is, serves it, and ends in order."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from components.core.errors import UsageError
from components.publish_mobile.private_key import make_key
from pipelines.cli.web import command
from serving.web.vendor import _mark


def start(tmp_path: Path, *more: str) -> "subprocess.Popen[str]":
    (litert := tmp_path / "litert").mkdir(exist_ok=True)
    (litert / "vendor.json").write_text(_mark())
    keys = tmp_path / "keys"
    keys.mkdir(exist_ok=True)
    environment = {**os.environ, "DUAL_KEYS": str(keys), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "pipelines.cli", "web", "--store", str(tmp_path / "store"), "--vendor", str(litert), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_it_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    from components.core.keyring import Keyring

    (tmp_path / "ring.json").write_text(Keyring(keys=[make_key().public]).model_dump_json())
    process = start(tmp_path, "--port", "0", "--keys", str(tmp_path / "ring.json"), "--offline")
    assert process.stdout is not None
    match = re.match(r"(http://127\.0\.0\.1:\d+/)  \(Ctrl-C ends it\)", process.stdout.readline())
    assert match
    assert "Two models, one answer" in httpx.get(match[1], trust_env=False).text
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()


def test_no_key_is_a_warning_and_a_taken_port_an_error(tmp_path: Path) -> None:
    first = start(tmp_path, "--port", "0")
    assert first.stdout is not None
    port = first.stdout.readline().rpartition(":")[2].partition("/")[0]
    second = start(tmp_path, "--port", port)
    _, said = second.communicate(timeout=60)
    first.terminate()
    _, warned = first.communicate(timeout=20)
    assert "no key is trusted" in warned
    assert (second.returncode, "can't listen there" in said) == (2, True), said


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serving.web.serve", None)
    with pytest.raises(UsageError, match="extra 'server'"):
        CliRunner().invoke(command, ["--store", str(tmp_path)], catch_exceptions=False)
