"""docs/vertex.md: every `dual` command in it is run, in the order of the page; and every setting is on it."""

import json
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from components.core.vertex import credentials
from components.core.vertex.connection import Connection
from pipelines.cli import cli
from serving.rollout.endpoint import actions
from serving.rollout.endpoint.state import Book
from tests.conftest import ROOT
from tests.kubeflow.plays import Frame, Play
from tests.kubeflow.records import ships
from tests.vertex.conftest import STORE
from tests.vertex.endpoint_site import IMAGE, PLAN, Ended, EndpointSite, stop_when
from tests.vertex.fake_vertex import FakeVertex

PAGE = ROOT / "docs" / "vertex.md"


def _is_of_endpoints(line: str) -> bool:
    return line.startswith("dual rollout") or "vertex-endpoint.yaml" in line


DIGEST = "@sha256:" + "0" * 64
_ALL = [line for block in re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL) for line in block.splitlines()]
LINES = [line for line in _ALL if not _is_of_endpoints(line)]
ENDPOINT_LINES = [line for line in _ALL if _is_of_endpoints(line)]


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


def test_every_command_about_endpoints_runs(new_site: Callable[[], EndpointSite], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the page; those for a rollout that goes on each get one that waits."""
    site = new_site()
    monkeypatch.setattr("components.core.stores.open_store", lambda _: site.store)
    first, second, *more = [site.release() for _ in range(6)]
    plan: dict[str, Any] = {"container": {"image": IMAGE}, "region": "europe-west4", "patience": 5, "plan": PLAN}
    builds = [{"imageName": name, "tag": f"r.example.com/{name}{DIGEST}"} for name in ("dual-trainer", "dual-deployer")]
    (tmp_path / "build.json").write_text(json.dumps({"builds": builds}))
    (tmp_path / "docs" / "sites").mkdir(parents=True)
    (tmp_path / "docs" / "sites" / "vertex-endpoint.yaml").write_text((ROOT / "docs" / "sites" / "vertex-endpoint.yaml").read_text())
    known = {"STORE": STORE, "RELEASE": first, "NEXT_RELEASE": second}
    monkeypatch.setattr(actions, "HEARD_WITHIN", 0.1)
    (tmp_path / "endpoint.yaml").write_text(json.dumps(plan))
    for line in ENDPOINT_LINES:
        words = shlex.split(re.sub(r"\$([A-Z_]+)", lambda match: known[match[1]], line))
        waiting = words[2] in ("pause", "resume", "promote", "abort")
        if waiting and (not (found := Book(site.store).read()) or found.is_over()):
            leave_waiting(site, more.pop())
        result = CliRunner().invoke(cli, words[1:], prog_name="dual")
        assert result.exit_code == 0, f"{line}: {result.exit_code}\n{result.output}\n{result.exception!r}"
    assert {line.split()[2] for line in ENDPOINT_LINES if "rollout" in line} == {
        *("plan", "start", "status", "history", "undo", "pause", "resume", "promote", "abort")
    }
    undone = CliRunner().invoke(cli, ["undo", "--store", STORE], prog_name="dual")
    assert (undone.exit_code, "served on a Vertex AI endpoint" in undone.output) == (0, True), undone.output
    assert site.fake.shares() == {site.channel(): 100}
    refused = CliRunner().invoke(cli, ["rollout", "status", "--target", "vertex", "--namespace", "x", "--store", STORE])
    assert (refused.exit_code, "--namespace means nothing" in refused.output) == (2, True)


def leave_waiting(site: EndpointSite, release: str) -> None:
    """A rollout whose process ended while it waited for a person."""
    steps = {"steps": [{"weight": 20, "pause": "manual"}, {"weight": 50}]}
    with pytest.raises(Ended):
        stop_when(site, "waiting for somebody", lambda: site.ship(release, plan=steps))


def test_every_setting_and_no_other_is_on_the_page() -> None:
    page = PAGE.read_text()
    assert [name for name in Connection.model_fields if f"`{name}`" not in page] == []
    assert {name.lower() for name in re.findall(r"DUAL_VERTEX_([A-Z_]+)", page)} <= set(Connection.model_fields)
    assert "DUAL_VERTEX_HOST" not in os.environ
