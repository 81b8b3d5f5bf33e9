"""What the jobs of the workflow `ship` do, with a `dual` that notes what it is asked; and credentials that hold no secret."""

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.conftest import ROOT
from tests.rollout.web import Asked, Reply, WebServer, reply

SHIP = ROOT / ".github" / "ship"
CREDENTIALS = ROOT / ".github" / "google_credentials.py"
RUN = "5f0c5d2e-1111-2222-3333-444455556666"
HOSTILE = '"; touch hacked; $(touch hacked) `touch hacked` #'
FAKE = """#!{python}
import json, os, sys
folder = os.environ["NOTES"]
asked = sys.argv[1:]
with open(folder + "/asked", "a") as file:
    file.write(json.dumps(asked) + "\\n")
script = json.load(open(folder + "/script.json"))
for words, answers in script.items():
    if asked[: len(words.split())] == words.split():
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        json.dump(script, open(folder + "/script.json", "w"))
        sys.stdout.write(answer["says"] + "\\n")
        sys.exit(answer.get("code", 0))
"""


@dataclass
class Job:
    """A job's machine: a `dual` that answers from a script."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    script: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def run(self, word: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        (self.folder / "script.json").write_text(json.dumps(self.script))
        environment = {**self.environment, **variables}
        return subprocess.run([SHIP, word], cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=60)

    def answers(self, words: str, *answers: Any, code: int = 0) -> None:
        self.script[words] = [{"says": each if isinstance(each, str) else json.dumps(each), "code": code} for each in answers]

    def asked(self) -> list[list[str]]:
        path = self.folder / "asked"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def said(self, name: str) -> str:
        return (self.folder / name).read_text()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    dual = tmp_path / "dual"
    dual.write_text(FAKE.format(python=sys.executable))
    dual.chmod(0o755)
    asked = {"TARGET": "kubeflow", "PROJECT": "my-project", "REGION": "europe-west4", "HEAVY": "false", "PROMOTE": "ask"}
    place = {"SITE": "site.yaml", "DATA": "", "STORE": "gs://bucket/store", "CLUSTER": "main", "NAMESPACE": "serving", "RUN": RUN}
    github = {"GITHUB_OUTPUT": str(tmp_path / "output"), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
    job = Job(
        tmp_path, {"PATH": os.environ["PATH"], "DUAL": str(dual), "NOTES": str(tmp_path), "LOOK_EVERY": "0.05", **asked, **place, **github}
    )
    job.answers("submit", {"run": RUN, "link": "https://kfp.example.com/#/runs/1"})
    return job


def test_a_light_run_is_submitted_without_accelerators_and_waits_at_its_gate(job: Job) -> None:
    done = job.run("submit")
    assert done.returncode == 0, done.stderr
    (asked,) = job.asked()
    assert asked == [
        *["submit", "--target", "kubeflow", "--images", "build.json", "--site", "site.yaml", "--store", "gs://bucket/store", "--json"],
        *["--profile", "quick", "--param", "accelerator_count=0", "--set", "roll_out_cloud.kubernetes.plan.gate=true"],
    ]
    assert job.said("output") == f"run={RUN}\nlink=https://kfp.example.com/#/runs/1\n"
    assert "https://kfp.example.com/#/runs/1" in job.said("summary")


def test_a_heavy_run_that_nobody_gates(job: Job) -> None:
    assert job.run("submit", HEAVY="true", PROMOTE="automatic", DATA="gs://b/flowers").returncode == 0
    (asked,) = job.asked()
    assert asked[-4:] == ["--data", "gs://b/flowers", "--profile", "standard"]


def test_vertex_is_told_its_project_and_region(job: Job) -> None:
    assert job.run("submit", TARGET="vertex", PROMOTE="automatic").returncode == 0
    assert job.asked()[0][1:7] == ["--target", "vertex", "--project", "my-project", "--region", "europe-west4"]


@pytest.mark.parametrize("word", ["doctor", "submit", "watch", "stop", "promote"])
def test_what_a_person_types_never_becomes_a_command(job: Job, word: str) -> None:
    hostile = dict.fromkeys(["PROJECT", "REGION", "SITE", "DATA", "STORE", "CLUSTER", "NAMESPACE", "RUN"], HOSTILE)
    job.answers("rollout status", {"run_id": HOSTILE, "phase": "paused", "gated": True})
    job.run(word, TARGET="vertex", **hostile)
    assert not (job.folder / "hacked").exists()
    assert HOSTILE in {part for asked in job.asked() for part in asked}


def test_a_link_with_line_breaks_sets_no_other_output(job: Job) -> None:
    job.answers("submit", {"run": RUN, "link": "https://x\nrun=other"})
    assert job.run("submit").returncode == 0
    assert job.said("output") == f"run={RUN}\nlink=https://xrun=other\n"


def test_a_submission_that_fails_ends_the_job(job: Job) -> None:
    job.answers("submit", "", code=2)
    assert job.run("submit").returncode == 2


@pytest.mark.parametrize("code", [0, 1, 3])
def test_waiting_ends_as_the_run_did(job: Job, code: int) -> None:
    job.answers("runs watch", "NOT SHIPPED: accuracy" if code else "SHIPPED", code=code)
    done = job.run("watch")
    assert (done.returncode, "SHIPPED" in job.said("summary")) == (code, True)
    assert job.asked()[0][:3] == ["runs", "watch", RUN]


def gate(phase: str = "paused", gated: bool = True, run: str = RUN) -> dict[str, Any]:
    return {"run_id": run, "phase": phase, "gated": gated}


def test_an_approval_that_came_early_waits_until_the_rollout_is_at_its_gate(job: Job) -> None:
    """Promoting at once would skip the canary's steps."""
    job.answers("rollout status", None, gate(run="older"), gate("canary", gated=False), gate("paused", gated=False), gate())
    job.answers("runs show", {"state": "running"})
    assert job.run("promote").returncode == 0
    words = [" ".join(asked[:2]) for asked in job.asked()]
    assert words == ["rollout status", "runs show", "rollout status", "runs show", *["rollout status"] * 3, "rollout promote"]
    assert job.asked()[-1] == ["rollout", "promote", "-n", "serving", "--store", "gs://bucket/store"]


def test_an_endpoints_rollout_is_promoted_and_taken_back_by_the_store(job: Job) -> None:
    job.answers("rollout status", gate())
    for word in ("promote", "stop"):
        assert job.run(word, TARGET="vertex").returncode == 0
    assert job.run("submit", TARGET="vertex").returncode == 0
    here = ["--target", "vertex", "--store", "gs://bucket/store"]
    asked = {" ".join(words[:2]): words[2:] for words in job.asked()}
    assert (asked["rollout status"], asked["rollout promote"], asked["rollout abort"][:4]) == ([*here, "--json"], here, here)
    assert "roll_out_cloud.vertex.plan.gate=true" in job.asked()[-1]


def test_on_vertex_a_site_may_serve_nothing(job: Job) -> None:
    job.answers("rollout status", None)
    job.answers("runs show", {"state": "succeeded"})
    done = job.run("promote", TARGET="vertex")
    assert (done.returncode, "rolled nothing out" in done.stdout) == (0, True)


@pytest.mark.parametrize("phase", ["aborted", "rolled_back", "superseded", "promoted"])
def test_a_rollout_that_is_over_is_not_promoted(job: Job, phase: str) -> None:
    job.answers("rollout status", gate(phase))
    assert job.run("promote").returncode == 1
    assert [asked[1] for asked in job.asked()] == ["status"]


def test_a_run_that_rolled_nothing_out_is_not_waited_for(job: Job) -> None:
    job.answers("rollout status", None)
    job.answers("runs show", {"state": "succeeded"})
    done = job.run("promote")
    assert (done.returncode, "rolled nothing out" in done.stdout) == (1, True)


def test_stopping_ends_the_run_and_takes_its_rollout_back(job: Job) -> None:
    job.answers("rollout status", gate("canary", gated=False))
    assert job.run("stop").returncode == 0
    assert [asked[:2] for asked in job.asked()] == [["runs", "terminate"], ["rollout", "status"], ["rollout", "abort"]]


@pytest.mark.parametrize("state", [None, gate(run="another"), gate("promoted")])
def test_stopping_leaves_other_rollouts_alone(job: Job, state: Any) -> None:
    job.answers("runs terminate", "", code=2)
    job.answers("rollout status", state)
    done = job.run("stop")
    assert (done.returncode, "no rollout of this run is in progress" in done.stdout) == (0, True)
    assert "abort" not in {word for asked in job.asked() for word in asked}


def test_a_cluster_is_needed_and_is_reached_by_name(job: Job) -> None:
    assert job.run("cluster", CLUSTER="").returncode == 2
    assert job.run("cluster", TARGET="vertex").returncode == 0
    gcloud = job.folder / "gcloud"
    gcloud.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > called; echo "$CLOUDSDK_CONTAINER_USE_APPLICATION_DEFAULT_CREDENTIALS" >> called\n')
    gcloud.chmod(0o755)
    assert job.run("cluster", PATH=f"{job.folder}:{os.environ['PATH']}").returncode == 0
    called = ["container", "clusters", "get-credentials", "main", "--region", "europe-west4", "--project", "my-project", "true"]
    assert job.said("called").split() == called


# --- credentials


def jwt(**claims: Any) -> str:
    """A token as GitHub's looks; nobody checks its signature here."""
    parts = [json.dumps({"alg": "RS256"}), json.dumps(claims), "signature"]
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


@dataclass
class Services:
    """GitHub's token service, Google's Security Token Service, and the service account's tokens, as documented."""

    audience: str = ""
    issued: int = 0
    expires_in: float = 300

    def answer(self, asked: Asked) -> Reply:
        """One request of the chain; each refuses what the step before did not give."""
        url = urlsplit(asked.path)
        authorization = next((value for key, value in asked.headers.items() if key.lower() == "authorization"), "")
        if url.path == "/github":
            if authorization != "Bearer request-token":
                return reply({"message": "Unauthorized"}, 401)
            self.issued += 1
            self.audience = parse_qs(url.query)["audience"][0]
            return reply(
                {"value": jwt(aud=self.audience, sub="repo:me/it:environment:ship", exp=time.time() + self.expires_in, n=self.issued)}
            )
        if url.path == "/sts":
            form = parse_qs(asked.body.decode())
            claims = json.loads(base64.urlsafe_b64decode(form["subject_token"][0].split(".")[1] + "=="))
            right = claims["aud"] == f"https:{form['audience'][0]}"
            return reply({"access_token": "federated", "expires_in": 3600, "token_type": "Bearer"}) if right else reply({"error": "x"}, 400)
        if url.path.startswith("/projects/"):
            return reply({"projectId": "my-project"}, 200 if authorization == "Bearer of-the-account" else 403)
        if authorization != "Bearer federated":
            return reply({"error": "who?"}, 403)
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        return reply({"accessToken": "of-the-account", "expireTime": until})


PROVIDER = "projects/123/locations/global/workloadIdentityPools/github/providers/repo"


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Services]:
    found = Services()
    with WebServer(found.answer) as server:
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{server.url}/github?api-version=2.0")
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "request-token")
        monkeypatch.setenv("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1")
        done = subprocess.run(
            [sys.executable, CREDENTIALS, "write", PROVIDER, "ship@p.iam.gserviceaccount.com"], capture_output=True, check=True
        )
        content = json.loads(done.stdout)
        content |= {"token_url": f"{server.url}/sts", "service_account_impersonation_url": f"{server.url}/account:generateAccessToken"}
        (tmp_path / "credentials.json").write_text(json.dumps(content))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "credentials.json"))
        # The library asks for the project's name too.
        monkeypatch.setattr("google.auth.external_account._CLOUD_RESOURCE_MANAGER", f"{server.url}/projects/")
        yield found


def token() -> str:
    """What Google's own library makes of the credentials in the environment."""
    import google.auth
    from google.auth.transport.requests import Request

    credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    credentials.refresh(Request())
    return str(credentials.token)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_googles_library_gets_a_token_of_the_service_account_through_the_jobs_own(services: Services) -> None:
    assert token() == "of-the-account"
    assert services.audience == f"https://iam.googleapis.com/{PROVIDER}"
    before = services.issued
    assert token() == "of-the-account"
    assert services.issued > before, "it is asked for when it is needed: nothing is kept"


def test_the_file_holds_no_secret(services: Services, tmp_path: Path) -> None:
    text = (tmp_path / "credentials.json").read_text()
    assert "request-token" not in text
    assert set(json.loads(text)) == {
        *("type", "audience", "subject_token_type", "token_url", "service_account_impersonation_url", "credential_source"),
    }


def test_without_the_permission_the_library_says_what_is_missing(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    from google.auth.exceptions import GoogleAuthError

    monkeypatch.delenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    with pytest.raises(GoogleAuthError, match="id-token: write"):
        token()


def test_a_refusal_of_github_shows_no_token(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "wrong-token")
    done = subprocess.run([sys.executable, CREDENTIALS, "token", "x"], capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["success"]) == (1, False)
    assert "wrong-token" not in done.stdout + done.stderr
