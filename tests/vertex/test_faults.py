"""Every refusal of Google's has a message of its own, with what mends it."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.core.errors import DualError
from components.core.vertex import credentials
from components.core.vertex.connection import read_connection
from pipelines.submission.vertex.orders import new_job_id
from pipelines.submission.vertex.service import open_service
from tests.doctor.fake_google import ACCOUNT, Google
from tests.kubeflow.fake_kfp import Answer, Request, as_json, as_page
from tests.vertex.conftest import Dual
from tests.vertex.fake_vertex import FakeVertex, Refusal, denied, invalid

LIST = ("runs", "list", "--target", "vertex")
ROLE = f"--member=serviceAccount:{ACCOUNT} --role=roles/aiplatform.user"
QUOTA = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"subject": "custom_model_training_nvidia_l4_gpus"}]}


def refusing(refusal: Refusal) -> Callable[[Request], Answer]:
    return lambda _: as_json(refusal.body, refusal.code)


@pytest.mark.parametrize(
    ("refusal", "exit_code", "said"),
    [
        (Refusal(401, "Request had invalid authentication credentials."), 1, [f"401, Google does not accept {ACCOUNT}"]),
        (
            denied("Permission 'aiplatform.pipelineJobs.list' denied on resource '//x' (or it may not exist)."),
            1,
            [f"{ACCOUNT} lacks aiplatform.pipelineJobs.list", f"gcloud projects add-iam-policy-binding my-project {ROLE}"],
        ),
        (denied("No.", "IAM_PERMISSION_DENIED", permission="aiplatform.schedules.create"), 1, ["lacks aiplatform.schedules.create"]),
        (
            denied("Not used before.", "SERVICE_DISABLED", service="aiplatform.googleapis.com"),
            1,
            ["the API aiplatform.googleapis.com is switched off", "gcloud services enable aiplatform.googleapis.com --project my-project"],
        ),
        (
            denied("The aiplatform.googleapis.com API requires a quota project, which is not set by default.", "SERVICE_DISABLED"),
            1,
            ["name no project whose quota counts", "gcloud auth application-default set-quota-project my-project"],
        ),
        (denied("No billing.", "BILLING_DISABLED"), 1, ["billing is switched off"]),
        (
            denied("You do not have permission to act as service account: s@my-project.iam.gserviceaccount.com."),
            1,
            ["lacks iam.serviceAccounts.actAs", "add-iam-policy-binding s@my-project.iam.gserviceaccount.com", "serviceAccountUser"],
        ),
        (Refusal(404, "The location is not found."), 2, ["404, not found", "Check the id, the project and the region"]),
        (Refusal(429, "Quota exceeded.", details=[QUOTA]), 1, ["the quota 'custom_model_training_nvidia_l4_gpus' is used up"]),
        (invalid("pipeline_job.network", "must be a full name."), 2, ["as invalid argument: pipeline_job.network: must be a full name."]),
        (Refusal(400, "Too late.", status="FAILED_PRECONDITION"), 2, ["as failed precondition: Too late."]),
        (Refusal(503, "The service is currently unavailable."), 1, ["503, Google can't answer now"]),
    ],
    ids=lambda value: str(getattr(value, "code", "")) or None,
)
def test_a_refusal_says_what_and_what_to_do(dual: Dual, vertex: FakeVertex, refusal: Refusal, exit_code: int, said: list[str]) -> None:
    vertex.guard = refusing(refusal)
    result = dual(*LIST)
    assert result.exit_code == exit_code, result.output
    assert [part for part in said if part not in result.output] == [], result.output
    assert "the-token" not in result.output


def test_a_token_that_is_refused_is_renewed_once(dual: Dual, vertex: FakeVertex) -> None:
    vertex.guard = lambda _: refusing(Refusal(401, "Expired."))(_) if len(vertex.requests) == 1 else None
    assert dual(*LIST).exit_code == 0
    assert len(vertex.requests) == 2


def test_the_project_whose_quota_counts_is_named(dual: Dual, vertex: FakeVertex) -> None:
    assert dual(*LIST, GOOGLE_CLOUD_QUOTA_PROJECT="payer").exit_code == 0
    assert {name.lower(): value for name, value in vertex.requests[0].headers.items()}["x-goog-user-project"] == "payer"


def test_a_page_instead_of_json_is_no_region(dual: Dual, vertex: FakeVertex) -> None:
    vertex.guard = lambda _: as_page("<html>Error 404 (Not Found)!!1</html>", 404)
    result = dual(*LIST)
    assert (result.exit_code, "is 'europe-west4' a region" in result.output) == (2, True)


def test_nobody_at_the_address(dual: Dual) -> None:
    result = dual(*LIST, DUAL_VERTEX_HOST="http://127.0.0.1:9")
    assert (result.exit_code, "does not answer" in result.output) == (1, True)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({}, "no region is named"),
        ({"region": "x", "host": "http://example.com"}, "only an endpoint on this machine"),
        ({"region": "x", "host": "https://example.com", "auth": "none"}, "only an endpoint on this machine"),
        ({"region": "x", "host": "example.com"}, "'example.com' is no address"),
        ({"region": "x", "auth": "none", "host": "http://localhost:1"}, "no project is named"),
        ({"region": "x", "network": "default"}, "network: String should match"),
        ({"region": "x", "auth": "dex"}, "auth: Input should be 'default' or 'none'"),
    ],
)
def test_a_connection_that_can_not_be(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(DualError, match=said.replace("(", r"\(")):
        open_service(**flags)


def test_the_regions_own_endpoint_unless_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM")
    assert read_connection(None, {"region": "europe-west4"}).endpoint() == "https://europe-west4-aiplatform.googleapis.com"
    monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM", "https://vertex.p.googleapis.com/")
    assert read_connection(None, {"region": "europe-west4"}).endpoint() == "https://vertex.p.googleapis.com"


def test_no_credentials_at_all(dual: Dual, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    result = dual(*LIST)
    assert (result.exit_code, "gcloud auth application-default login" in result.output) == (1, True), result.output


def test_credentials_that_give_no_token(dual: Dual, google: Google) -> None:
    google.refuse_tokens = True
    result = dual(*LIST)
    assert (result.exit_code, "the credentials give no token (" in result.output) == (1, True), result.output


@pytest.mark.parametrize("allowed", [True, False])
def test_another_account_is_asked_as(dual: Dual, vertex: FakeVertex, monkeypatch: pytest.MonkeyPatch, allowed: bool) -> None:
    """Google's IAM has a fixed address: this one request is answered here."""
    real, asked = credentials._timed, list[str]()

    def timed(seconds: float) -> Any:
        send = real(seconds)

        def answer(url: str, *arguments: Any, **options: Any) -> Any:
            if not url.startswith("https://iamcredentials.googleapis.com/"):
                return send(url, *arguments, **options)
            asked.append(url)
            end = f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
            body = f'{{"accessToken": "the-token", "expireTime": "{end}"}}' if allowed else '{"error": {"message": "no"}}'
            return SimpleNamespace(status=200 if allowed else 403, data=body.encode(), headers={})

        return answer

    monkeypatch.setattr(credentials, "_timed", timed)
    result = dual(*LIST, "--impersonate", "runner@my-project.iam.gserviceaccount.com")
    assert "runner@my-project.iam.gserviceaccount.com:generateAccessToken" in asked[0]
    if allowed:
        assert (result.exit_code, len(vertex.requests)) == (0, 1), result.output
    else:
        assert (result.exit_code, "roles/iam.serviceAccountTokenCreator" in result.output) == (1, True), result.output


@pytest.mark.parametrize("pipeline", ["dual-deploy", "9 Lives", "x" * 200, "Ärger_2"])
def test_an_id_is_one_that_vertex_takes(pipeline: str) -> None:
    assert re.fullmatch(r"[a-z][-a-z0-9]{0,127}", new_job_id(pipeline))
    assert new_job_id(pipeline) != new_job_id(pipeline)
