"""Google's APIs as the doctor asks them: application default credentials, one token, plain REST, and Google's own words for a refusal."""

import os
from dataclasses import dataclass
from typing import Any

import httpx

from components.core.errors import DualError, UsageError
from pipelines.doctor.network import silence

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_LOGIN = "gcloud auth application-default login   (or: export GOOGLE_APPLICATION_CREDENTIALS=KEY.json, or Workload Identity)"


@dataclass(frozen=True)
class Identity:
    """Who asks Google, with a token that is good for a while."""

    name: str
    """An account, or what kind of credentials these are."""
    project: str
    """The project that the credentials bring along; may be empty."""
    token: str
    kind: str

    def __repr__(self) -> str:
        """Without the token."""
        return f"Identity({self.name})"


@dataclass(frozen=True)
class Said:
    """An answer: the body, or why it was refused."""

    status: int
    body: dict[str, Any]

    @property
    def error(self) -> dict[str, Any]:
        """Google's error object (https://cloud.google.com/apis/design/errors)."""
        found = self.body.get("error", {})
        return found if isinstance(found, dict) else {"message": str(found)}

    @property
    def disabled(self) -> str:
        """The command that switches the API on, if it is off in the project; else empty."""
        for detail in self.error.get("details", []):
            if detail.get("reason") == "SERVICE_DISABLED":
                about = detail.get("metadata", {})
                project = str(about.get("consumer", "PROJECT")).removeprefix("projects/")
                return f"gcloud services enable {about.get('service', 'SERVICE')} --project {project}"
        return ""

    @property
    def message(self) -> str:
        """What Google says."""
        return f"{self.status}: {' '.join(str(self.error.get('message', '')).split())[:300]}".rstrip(": ")


def identity(timeout: float) -> Identity:
    """The application default credentials, with a fresh token; `UsageError` if there are none, `DualError` if Google gives no token."""
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
    from google.auth.transport.requests import Request

    try:
        credentials, project = google.auth.default(scopes=[_SCOPE])
        credentials.refresh(_timed(Request(), timeout))
    except DefaultCredentialsError:
        raise UsageError("there are no application default credentials", where="Google Cloud", fix=_LOGIN) from None
    except (GoogleAuthError, OSError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:300].rstrip(".")
        raise DualError(f"the credentials give no token ({first})", where="Google Cloud", fix=_LOGIN) from None
    name = getattr(credentials, "service_account_email", "") or getattr(credentials, "account", "") or type(credentials).__module__
    return Identity(str(name), str(project or ""), str(credentials.token), type(credentials).__name__)


def ask(
    who: Identity, service: str, path: str, body: dict[str, Any] | None = None, *, timeout: float, project: str = "", host: str = ""
) -> Said:
    """GET `path` of a service (or POST `body`), as `who`; `DualError` if there is no answer.

    CLOUDSDK_API_ENDPOINT_OVERRIDES_<SERVICE> leads elsewhere, as it does for gcloud (https://cloud.google.com/sdk/gcloud/reference/config/set).
    """
    override = os.environ.get(f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{service.upper()}", "")
    address = (override or f"https://{host or f'{service}.googleapis.com'}/").rstrip("/") + path
    headers = {"Authorization": f"Bearer {who.token}", **({"X-Goog-User-Project": project} if project else {})}
    try:
        answer = httpx.request("POST" if body is not None else "GET", address, json=body, headers=headers, timeout=timeout)
        found = answer.json() if answer.content else {}
    except httpx.HTTPError as error:
        what, fix = silence(error, f"curl -sI {address}")
        raise DualError(what, where=address, fix=fix) from None
    except ValueError:
        raise DualError("answers with something that is no JSON", where=address, fix="Check proxies on the way") from None
    return Said(answer.status_code, found if isinstance(found, dict) else {})


def _timed(request: Any, timeout: float) -> Any:
    """A transport that waits no longer than the check may."""

    def send(*arguments: Any, **options: Any) -> Any:
        options["timeout"] = timeout
        return request(*arguments, **options)

    return send
