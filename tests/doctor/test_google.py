"""Vertex and Firebase: credentials, switched-off APIs, missing rights, accounts and buckets, as Google's REST answers them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.doctor.examine import Check, Look, examine
from pipelines.doctor.finding import Finding
from pipelines.doctor.firebase import check_firebase
from pipelines.doctor.vertex import DEPLOYING, PERMISSIONS, check_google, check_vertex
from pipelines.doctor.visit import Visit
from pipelines.targets.site import Site
from tests.doctor.conftest import only
from tests.doctor.fake_google import ACCOUNT, Google, error, fake_google
from tests.rollout.web import Asked, Reply, reply, unused_port

JOBS = "/aiplatform/v1/projects/my-project/locations/europe-west4/pipelineJobs"
MAY = "/cloudresourcemanager/v1/projects/my-project:testIamPermissions"
STEPS = "steps@my-project.iam.gserviceaccount.com"
STEPS_PATH = f"/iam/v1/projects/-/serviceAccounts/{STEPS}"
PROJECT = "/firebase/v1beta1/projects/my-project"
BUCKET = "/firebasestorage/v1beta/projects/my-project/buckets/my-project.firebasestorage.app"


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    monkeypatch.delenv("FIREBASE_STORAGE_EMULATOR_HOST", raising=False)
    with fake_google(tmp_path, monkeypatch) as found:
        yield found


def granting(*permissions: str) -> Any:
    """Of the permissions that are asked about, those that one has."""

    def answer(asked: Asked) -> Reply:
        return reply({"permissions": [each for each in json.loads(asked.body)["permissions"] if each in permissions]})

    return answer


def visit(**options: Any) -> Visit:
    return Visit(**{"target": "vertex", "region": "europe-west4", "service_account": STEPS, "seconds": 5, **options})


def looked(look: Look, **options: Any) -> list[Finding]:
    """As the command would tell it."""
    return list(examine(visit(**options), [Check("x", look, frozenset({"vertex"}), "")]))


def test_credentials_are_named_with_their_project_and_never_shown(google: Google) -> None:
    found = only(check_google(visit()))
    assert (found.status, found.found) == ("ok", f"{ACCOUNT}, project my-project")
    assert "the-token" not in repr(found)


def test_no_credentials_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    found = only(looked(check_google))
    assert (found.status, "no application default credentials" in found.found) == ("failed", True)
    assert "gcloud auth application-default login" in found.fix


def test_credentials_that_are_refused(google: Google) -> None:
    google.refuse_tokens = True
    found = only(looked(check_google))
    assert (found.status, "the credentials give no token" in found.found) == ("failed", True), found


def test_vertex_is_fine(google: Google) -> None:
    google.answers |= {JOBS: reply({}), MAY: granting(*PERMISSIONS)}
    google.answers |= {STEPS_PATH: reply({"email": STEPS}), f"{STEPS_PATH}:testIamPermissions": granting("iam.serviceAccounts.actAs")}
    assert [(found.check, found.status) for found in check_vertex(visit())] == [
        ("vertex", "ok"),
        ("vertex rights", "ok"),
        ("vertex account", "ok"),
    ]
    started = [asked for asked in google.asked if asked.method == "POST" and "testIamPermissions" not in asked.path]
    assert started == []


def test_an_api_that_is_switched_off_is_told_with_the_command(google: Google) -> None:
    off = error(
        403, "Vertex AI API has not been used", "SERVICE_DISABLED", service="aiplatform.googleapis.com", consumer="projects/my-project"
    )
    google.answers |= {JOBS: off, MAY: granting(*PERMISSIONS)}
    found = check_vertex(visit())[0]
    assert (found.status, found.fix) == ("failed", "gcloud services enable aiplatform.googleapis.com --project my-project")


def test_missing_rights_are_named(google: Google) -> None:
    google.answers |= {JOBS: error(403, "Permission 'aiplatform.pipelineJobs.list' denied"), MAY: granting("aiplatform.pipelineJobs.get")}
    api, rights, _ = check_vertex(visit())
    assert (api.status, "may not use Vertex AI" in api.found) == ("failed", True)
    assert f"--member=serviceAccount:{ACCOUNT} --role=roles/aiplatform.user" in api.fix
    assert rights.status == "failed"
    assert "aiplatform.pipelineJobs.create" in rights.found
    assert "aiplatform.pipelineJobs.get" not in rights.found


def test_rights_to_deploy_are_looked_at_where_the_site_serves_from_an_endpoint(google: Google) -> None:
    google.answers |= {JOBS: reply({}), MAY: granting(*PERMISSIONS)}
    site = Site.model_validate({"vertex": {"settings": {"roll_out_cloud": {"target": "vertex"}}}})
    assert check_vertex(visit())[1].status == "ok"
    lacking = check_vertex(visit(site=site))[1]
    assert (lacking.status, [each for each in DEPLOYING if each not in lacking.found]) == ("failed", [])
    google.answers[MAY] = granting(*PERMISSIONS, *DEPLOYING)
    assert check_vertex(visit(site=site))[1].status == "ok"


@pytest.mark.parametrize("permission", ["aiplatform.schedules.create", "aiplatform.pipelineJobs.delete"])
def test_rights_of_schedules_and_deletion_are_looked_at(google: Google, permission: str) -> None:
    google.answers |= {JOBS: reply({}), MAY: granting(*(each for each in PERMISSIONS if each != permission))}
    rights = check_vertex(visit())[1]
    assert (rights.status, permission in rights.found) == ("failed", True)


@pytest.mark.parametrize(
    ("account", "may", "words"),
    [
        (None, None, "there is no account"),
        (reply({"email": STEPS, "disabled": True}), None, "is disabled"),
        (reply({"email": STEPS}), granting(), "may not start steps as"),
        (reply({"email": STEPS}), error(403, "denied"), "403: denied"),
    ],
)
def test_the_steps_account_is_looked_at(google: Google, account: Reply | None, may: Any, words: str) -> None:
    google.answers |= {JOBS: reply({}), MAY: granting(*PERMISSIONS)}
    google.answers |= {path: found for path, found in ((STEPS_PATH, account), (f"{STEPS_PATH}:testIamPermissions", may)) if found}
    found = check_vertex(visit())[-1]
    assert (found.check, found.status, words in found.found) == ("vertex account", "failed", True), found
    assert found.fix.startswith("gcloud iam service-accounts")


def test_without_a_named_account_the_default_one_is_warned_of(google: Google) -> None:
    google.answers |= {JOBS: reply({}), MAY: granting(*PERMISSIONS)}
    assert check_vertex(visit(service_account=""))[-1].status == "warning"


def test_no_region_is_nothing_to_look_at(google: Google) -> None:
    assert only(check_vertex(visit(region=""))).status == "skipped"
    assert google.asked == []


def test_an_api_that_does_not_answer(google: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM", f"http://127.0.0.1:{unused_port()}/")
    found = only(looked(check_vertex))
    assert (found.status, "nothing listens there" in found.found) == ("failed", True)


def firebase(**options: Any) -> list[Finding]:
    return check_firebase(visit(firebase_bucket="my-project.firebasestorage.app", **options))


def test_firebase_is_fine(google: Google) -> None:
    google.answers |= {PROJECT: reply({"displayName": "My app"}), BUCKET: reply({"name": "x"})}
    project, bucket = firebase()
    assert (project.status, project.found) == ("ok", f"project My app, as {ACCOUNT}")
    assert (bucket.status, bucket.found) == ("ok", "my-project.firebasestorage.app is linked to my-project")


def test_a_project_that_is_not_firebases(google: Google) -> None:
    assert only(firebase()).fix == "firebase projects:addfirebase my-project"


def test_a_bucket_that_is_not_linked(google: Google) -> None:
    google.answers[PROJECT] = reply({})
    bucket = firebase()[1]
    assert (bucket.status, "is not linked" in bucket.found) == ("failed", True)


def test_firebase_that_may_not_be_seen(google: Google) -> None:
    google.answers[PROJECT] = error(403, "The caller does not have permission")
    found = only(firebase())
    assert (found.status, "does not have permission" in found.found) == ("failed", True)


def test_the_emulator_has_no_project(google: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIREBASE_STORAGE_EMULATOR_HOST", "127.0.0.1:9199")
    assert only(firebase()).status == "ok"
    assert google.asked == []


def test_without_a_bucket_firebase_is_not_looked_at() -> None:
    assert only(check_firebase(Visit(target="local"))).status == "skipped"
