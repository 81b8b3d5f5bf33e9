"""Vertex AI: credentials, project and region, the API, what this identity may, and the account that steps run as."""

from collections.abc import Iterator

from pipelines.doctor.finding import Finding, failed, ok, skipped, warning
from pipelines.doctor.google import Identity, ask, identity
from pipelines.doctor.visit import Visit

PERMISSIONS = (
    "aiplatform.pipelineJobs.create",
    "aiplatform.pipelineJobs.get",
    "aiplatform.pipelineJobs.list",
    "aiplatform.pipelineJobs.cancel",
    "aiplatform.pipelineJobs.delete",
    "aiplatform.schedules.create",
    "aiplatform.schedules.get",
    "aiplatform.schedules.list",
    "aiplatform.schedules.update",
    "aiplatform.schedules.delete",
)
"""What `dual submit --target vertex`, `dual runs` and `dual schedule` do; the role roles/aiplatform.user has them."""
DEPLOYING = (
    "aiplatform.models.upload",
    "aiplatform.models.get",
    "aiplatform.models.list",
    "aiplatform.endpoints.create",
    "aiplatform.endpoints.get",
    "aiplatform.endpoints.list",
    "aiplatform.endpoints.update",
    "aiplatform.endpoints.deploy",
    "aiplatform.endpoints.undeploy",
    "aiplatform.endpoints.predict",
)
"""What a rollout on an endpoint does; the role roles/aiplatform.user has them, too."""
_ACT_AS = "iam.serviceAccounts.actAs"


def check_google(visit: Visit) -> list[Finding]:
    """There are credentials, and they give a token."""
    who = identity(visit.seconds / 2)
    project = visit.project or who.project
    if not project:
        return [
            failed("google", f"{who.name}: no project is set", "dual doctor --project PROJECT   (or: gcloud config set project PROJECT)")
        ]
    return [ok("google", f"{who.name}, project {project}")]


def check_vertex(visit: Visit) -> list[Finding]:
    """The API answers in the region, and this identity may run pipelines."""
    if not visit.region:
        return [skipped("vertex", "no region was named", "dual doctor --target vertex --project PROJECT --region REGION")]
    who = identity(visit.seconds / 2)
    project = visit.project or who.project
    return [_api(visit, who, project), *_permissions(visit, who, project), *_account(visit, who, project)]


def _api(visit: Visit, who: Identity, project: str) -> Finding:
    path = f"/v1/projects/{project}/locations/{visit.region}/pipelineJobs?pageSize=1"
    said = ask(who, "aiplatform", path, timeout=visit.seconds / 2, host=f"{visit.region}-aiplatform.googleapis.com")
    if said.status == 200:
        return ok("vertex", f"pipelines of {project} in {visit.region} can be listed")
    if said.disabled:
        return failed("vertex", f"the API is switched off in {project}", said.disabled)
    if said.status == 403:
        fix = f"gcloud projects add-iam-policy-binding {project} --member={_member(who)} --role=roles/aiplatform.user"
        return failed("vertex", f"{who.name} may not use Vertex AI in {project} ({said.message})", fix)
    return failed("vertex", f"{project}, {visit.region}: {said.message}", "Check the project and the region: gcloud ai locations list")


def _permissions(visit: Visit, who: Identity, project: str) -> Iterator[Finding]:
    """Asked, not tried: nothing is started. Those of endpoints only where the site serves from one."""
    deploys = visit.site.vertex.serves_from_endpoint()
    wanted = [*PERMISSIONS, *(DEPLOYING if deploys else ())]
    path = f"/v1/projects/{project}:testIamPermissions"
    said = ask(who, "cloudresourcemanager", path, {"permissions": wanted}, timeout=visit.seconds / 2, project=project)
    if said.status != 200:
        fix = said.disabled or f"gcloud projects get-iam-policy {project}"
        yield warning("vertex rights", f"can't be asked: {said.message}", fix)
        return
    missing = [each for each in wanted if each not in said.body.get("permissions", [])]
    if missing:
        fix = f"gcloud projects add-iam-policy-binding {project} --member={_member(who)} --role=roles/aiplatform.user"
        yield failed("vertex rights", f"{who.name} lacks {', '.join(missing)}", fix)
    else:
        endpoints = ", and deploy to endpoints" if deploys else ""
        yield ok("vertex rights", f"{who.name} may start, see, schedule and end pipelines{endpoints}")


def _account(visit: Visit, who: Identity, project: str) -> Iterator[Finding]:
    """The steps' account exists, is not disabled, and this identity may hand it to them."""
    account = visit.service_account
    if not account:
        what = "steps run as the project's default compute account, which may do more than they need"
        yield warning("vertex account", what, "dual doctor --service-account NAME@PROJECT.iam.gserviceaccount.com")
        return
    path = f"/v1/projects/-/serviceAccounts/{account}"
    said = ask(who, "iam", path, timeout=visit.seconds / 2, project=project)
    if said.status == 404:
        yield failed(
            "vertex account",
            f"there is no account {account}",
            f"gcloud iam service-accounts create {account.partition('@')[0]} --project {project}",
        )
        return
    if said.status == 200 and said.body.get("disabled"):
        yield failed("vertex account", f"{account} is disabled", f"gcloud iam service-accounts enable {account}")
        return
    may = ask(who, "iam", f"{path}:testIamPermissions", {"permissions": [_ACT_AS]}, timeout=visit.seconds / 2, project=project)
    if may.status == 200 and _ACT_AS in may.body.get("permissions", []):
        yield ok("vertex account", f"steps may run as {account}")
        return
    fix = f"gcloud iam service-accounts add-iam-policy-binding {account} --member={_member(who)} --role=roles/iam.serviceAccountUser"
    what = f"{who.name} may not start steps as {account}" + (f" ({may.message})" if may.status != 200 else "")
    yield failed("vertex account", what, fix)


def _member(who: Identity) -> str:
    if "@" not in who.name:
        return "user:YOU"
    return f"serviceAccount:{who.name}" if who.name.endswith("gserviceaccount.com") else f"user:{who.name}"
