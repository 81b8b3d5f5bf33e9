"""The GitHub workflows: what nobody may be able to do with them, and what actionlint says."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
ACTIONS = sorted((GITHUB / "actions").glob("*/action.yml"))
FILES = [*WORKFLOWS, *ACTIONS]
ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"
Json = dict[str, Any]


def name(path: Path) -> str:
    return path.relative_to(GITHUB).as_posix()


def load(path: Path) -> Json:
    return {str(key): value for key, value in yaml.safe_load(path.read_text()).items()}


def triggers(workflow: str) -> Json:
    """What starts a workflow; `on` is the boolean True to YAML 1.1."""
    return load(GITHUB / "workflows" / workflow)["True"]


def jobs(path: Path) -> Json:
    return load(path).get("jobs", {})


def steps(path: Path) -> Iterator[Json]:
    """Every step of a workflow or a composite action."""
    yield from (step for job in jobs(path).values() for step in job.get("steps", []))
    yield from load(path).get("runs", {}).get("steps", [])


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_that_a_person_types_becomes_part_of_a_script(path: Path) -> None:
    """Inputs reach scripts as environment variables: an expression inside `run` is code."""
    assert [step["run"] for step in steps(path) if "${{" in step.get("run", "")] == []


@pytest.mark.parametrize("path", FILES, ids=name)
def test_actions_of_others_are_pinned_by_their_commit(path: Path) -> None:
    lines = re.findall(r"uses: +(\S+)(.*)$", path.read_text(), re.MULTILINE)
    others = [(used, rest) for used, rest in lines if not used.startswith("./")]
    assert [
        used for used, rest in others if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", used) or not re.search(r"# v\d+\.\d+\.\d+$", rest)
    ] == []


def test_the_same_action_has_the_same_commit_everywhere() -> None:
    commits: dict[str, set[str]] = {}
    for path in FILES:
        for action, commit in re.findall(r"uses: +([\w./-]+)@([0-9a-f]{40})", path.read_text()):
            commits.setdefault(action, set()).add(commit)
    assert {action: found for action, found in commits.items() if len(found) > 1} == {}


@pytest.mark.parametrize("path", WORKFLOWS, ids=name)
def test_a_workflow_may_do_little_and_each_job_what_it_needs(path: Path) -> None:
    whole = load(path)["permissions"]
    assert whole in ({}, {"contents": "read"})
    for job, content in jobs(path).items():
        permissions = content.get("permissions", whole)
        assert set(permissions) <= {"contents", "id-token"}, job
        assert permissions.get("contents") == "read", job
        # The right to be somebody at Google Cloud: only in jobs that run on demand, in a protected environment.
        asks = "id-token" in permissions
        assert asks == ("environment" in content), job
        assert not asks or path.name == "ship.yml", job


@pytest.mark.parametrize("path", WORKFLOWS, ids=name)
def test_every_job_ends_and_no_login_stays_in_the_checkout(path: Path) -> None:
    for job, content in jobs(path).items():
        assert 0 < content["timeout-minutes"] <= 360, job
        for step in content["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False, job
    assert "concurrency" in load(path)
    assert load(path)["defaults"]["run"]["shell"] == "bash"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_there_is_no_secret_to_leak(path: Path) -> None:
    text = path.read_text()
    assert "secrets." not in text
    assert "credentials_json" not in text
    assert "pull_request_target" not in text
    # The job's token at GitHub would be in the file that the action makes by default; ours names a command.
    assert text.count("google-github-actions/auth@") == text.count("create_credentials_file: false")


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_token_goes_to_the_step_that_needs_it_and_nowhere_else(path: Path) -> None:
    for step in steps(path):
        script = step.get("run", "")
        assert "ACCESS_TOKEN" not in script, script
        for key, value in step.get("env", {}).items():
            if "access-token" in str(value):
                assert key == "CLOUDSDK_AUTH_ACCESS_TOKEN"
    whole = {**load(path).get("env", {}), **{key: value for job in jobs(path).values() for key, value in job.get("env", {}).items()}}
    assert not any("token" in str(value) for value in whole.values())


def test_the_changes_of_strangers_get_no_identity() -> None:
    assert set(triggers("ci.yml")) == {"push", "pull_request"}
    assert "vars." not in (GITHUB / "workflows" / "ci.yml").read_text()


def test_shipping_is_asked_for_with_the_inputs_that_it_promises() -> None:
    assert set(triggers("ship.yml")) == {"workflow_dispatch"}
    inputs = triggers("ship.yml")["workflow_dispatch"]["inputs"]
    assert {"branch", "project", "region", "target", "heavy", "promote"} <= set(inputs)
    assert inputs["heavy"]["type"] == "boolean"
    assert inputs["target"]["options"] == ["kubeflow", "vertex"]
    # A workflow's inputs are 25 at most (GitHub), and each is used.
    text = (GITHUB / "workflows" / "ship.yml").read_text()
    assert [each for each in inputs if f"inputs.{each}" not in text] == []


def test_images_that_ci_builds_are_those_that_there_are() -> None:
    ci = load(GITHUB / "workflows" / "ci.yml")
    built = ci["jobs"]["images"]["strategy"]["matrix"]["image"]
    assert sorted(built) == sorted(path.parent.name for path in (ROOT / "images").glob("*/Dockerfile"))


@pytest.mark.slow
def test_actionlint_has_nothing_to_say(tmp_path_factory: pytest.TempPathFactory) -> None:
    tool = shutil.which("actionlint") or _installed(tmp_path_factory.mktemp("go"))
    done = subprocess.run([tool, "-no-color", *map(str, WORKFLOWS)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def _installed(folder: Path) -> str:
    """Actionlint, built by Go from its module; skipped where neither is."""
    if shutil.which("go") is None:
        pytest.skip(f"needs actionlint, or Go to build it: go install {ACTIONLINT}")
    environment = {**os.environ, "GOBIN": str(folder), "GOFLAGS": "-mod=mod"}
    done = subprocess.run(["go", "install", ACTIONLINT], env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return str(folder / "actionlint")
