"""docs/vertex.md: every `dual` command in it is run, in the order of the page; and every setting is on it."""

import json
import os
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from components.core.vertex import credentials
from components.core.vertex.connection import Connection
from pipelines.cli import cli
from tests.conftest import ROOT
from tests.kubeflow.plays import Frame, Play
from tests.kubeflow.records import ships
from tests.vertex.conftest import STORE
from tests.vertex.fake_vertex import FakeVertex

PAGE = ROOT / "docs" / "vertex.md"
DIGEST = "@sha256:" + "0" * 64
LINES = [line for block in re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL) for line in block.splitlines()]


def test_every_command_runs(vertex: FakeVertex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds = [{"imageName": name, "tag": f"r.example.com/{name}{DIGEST}"} for name in ("dual-trainer", "dual-deployer")]
    (tmp_path / "build.json").write_text(json.dumps({"builds": builds}))
    (tmp_path / "site.yaml").write_text("vertex: {pipeline_root: gs://models/root}\n")
    (tmp_path / "vertex.yaml").write_text("labels: {team: plants}\n")
    monkeypatch.setattr(credentials, "_impersonated", lambda connection, found, project: credentials.Credentials("x", project, found))
    known = {"DUAL_VERTEX_HOST": vertex.url, "STORE": STORE, "ACCOUNT": "steps@my-project.iam.gserviceaccount.com"}
    ran = 0
    for line in LINES:
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            known[name] = value
            continue
        if "$RUN" in line and "RUN" not in known:
            known["OLD_RUN"] = known["RUN"] = list(vertex.jobs)[-1]
        if line.startswith("dual runs list"):
            # One that can be ended, for the lines that follow.
            vertex.play = lambda _: Play([Frame("RUNNING", {"ingest": "RUNNING"})])
            started = CliRunner(env=known).invoke(
                cli, shlex.split(f"submit --target vertex --package pipeline.yaml --data drawn --store {STORE}")
            )
            assert started.exit_code == 0, started.output
            known["RUN"], vertex.play = list(vertex.jobs)[-1], ships
        words = shlex.split(re.sub(r"\$([A-Z_]+)", lambda match: known[match[1]], line))
        assert words[0] == "dual", f"{line}: nobody runs this"
        short = ["--every", "0.02"] if "--watch" in words or words[1:3] == ["runs", "watch"] else []
        result = CliRunner(env=known).invoke(cli, [*words[1:], *short], prog_name="dual")
        assert result.exit_code == 0, f"{line}: {result.exit_code}\n{result.output}\n{result.exception!r}"
        ran += 1
    assert ran > 15
    assert vertex.schedules == {}


def test_every_setting_and_no_other_is_on_the_page() -> None:
    page = PAGE.read_text()
    assert [name for name in Connection.model_fields if f"`{name}`" not in page] == []
    assert {name.lower() for name in re.findall(r"DUAL_VERTEX_([A-Z_]+)", page)} <= set(Connection.model_fields)
    assert "DUAL_VERTEX_HOST" not in os.environ
