"""What Google refuses, one message for each cause, with the command that mends it.

The shape of errors is that of https://cloud.google.com/apis/design/errors: a code, a status, a message, and details of known types
(ErrorInfo, BadRequest, QuotaFailure).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from components.core.errors import ConflictError, DualError, MissingError, UnavailableError, UsageError

_PERMISSION = re.compile(r"[Pp]ermission '?([a-z]+\.[A-Za-z]+\.[A-Za-z]+)'?")
_ACCOUNT = re.compile(r"[\w.-]+@[\w.-]+\.gserviceaccount\.com")
_PASSING = (408, 500, 502, 503, 504)


class AuthError(DualError):
    """Google does not know this identity, or does not let it do that."""


class QuotaError(UnavailableError):
    """A quota is used up now: asking again later may help."""


@dataclass(frozen=True)
class Asked:
    """Who was asked for what, and by whom."""

    endpoint: str
    project: str
    region: str
    identity: str


@dataclass(frozen=True)
class Refusal:
    """An answer that is no success."""

    status: int
    body: Mapping[str, Any] | None
    """None: no JSON."""

    def error(self) -> Mapping[str, Any]:
        """Google's error object."""
        found = (self.body or {}).get("error", {})
        return found if isinstance(found, dict) else {"message": str(found)}

    def said(self) -> str:
        """What Google says, in one line."""
        return " ".join(str(self.error().get("message", "")).split())[:400].rstrip(".")

    def reason(self) -> str:
        """ErrorInfo's reason, such as SERVICE_DISABLED; empty if there is none."""
        return next((each["reason"] for each in self._details() if "reason" in each), "")

    def metadata(self, key: str) -> str:
        """A value of ErrorInfo's metadata, or empty."""
        return next((str(each["metadata"][key]) for each in self._details() if key in each.get("metadata", {})), "")

    def violations(self, kind: str) -> list[Mapping[str, Any]]:
        """`fieldViolations` (BadRequest) or `violations` (QuotaFailure, PreconditionFailure)."""
        return [each for detail in self._details() for each in detail.get(kind, ())]

    def _details(self) -> list[Mapping[str, Any]]:
        return [each for each in self.error().get("details", ()) if isinstance(each, dict)]


def answer_fault(asked: Asked, refusal: Refusal) -> DualError:
    """The error for an answer that is no success."""
    if refusal.body is None and refusal.status == 404:
        fix = "Check --region: gcloud ai locations list"
        return UsageError(f"there is no Vertex AI here (404, and no JSON): is '{asked.region}' a region", where=asked.endpoint, fix=fix)
    if refusal.status in _PASSING:
        fix = "Try again later; see https://status.cloud.google.com"
        return UnavailableError(f"{refusal.status}, Google can't answer now ({refusal.said()})", where=asked.endpoint, fix=fix)
    return _FAULTS.get(refusal.status, _refused)(asked, refusal)


def _unknown(asked: Asked, refusal: Refusal) -> DualError:
    fix = "gcloud auth application-default login"
    return AuthError(f"401, Google does not accept {asked.identity} ({refusal.said()})", where=asked.endpoint, fix=fix)


def _forbidden(asked: Asked, refusal: Refusal) -> DualError:
    where = f"project {asked.project}"
    if "quota project" in refusal.said():
        # Google calls this SERVICE_DISABLED, too, of a project of gcloud's that nobody knows.
        fix = f"gcloud auth application-default set-quota-project {asked.project}"
        return AuthError("403, the credentials of a person name no project whose quota counts", where=where, fix=fix)
    if refusal.reason() == "SERVICE_DISABLED":
        service = refusal.metadata("service") or "aiplatform.googleapis.com"
        fix = f"gcloud services enable {service} --project {asked.project}   (and wait some minutes)"
        return AuthError(f"403, the API {service} is switched off", where=where, fix=fix)
    if refusal.reason() == "BILLING_DISABLED":
        return AuthError(
            "403, billing is switched off", where=where, fix=f"gcloud billing projects link {asked.project} --billing-account=ID"
        )
    if "act as" in refusal.said() or "actAs" in refusal.said():
        return _may_not_act(asked, refusal)
    found = _PERMISSION.search(refusal.said())
    permission = refusal.metadata("permission") or (found[1] if found else "")
    fix = f"gcloud projects add-iam-policy-binding {asked.project} --member={_member(asked)} --role=roles/aiplatform.user"
    lacks = f"{asked.identity} lacks {permission}" if permission else f"{asked.identity} may not do that"
    return AuthError(f"403, {lacks} ({refusal.said()})", where=where, fix=fix)


def _may_not_act(asked: Asked, refusal: Refusal) -> DualError:
    found = _ACCOUNT.search(refusal.said())
    account = found[0] if found else "ACCOUNT"
    role = f"--member={_member(asked)} --role=roles/iam.serviceAccountUser"
    fix = f"gcloud iam service-accounts add-iam-policy-binding {account} {role}"
    what = f"403, {asked.identity} lacks iam.serviceAccounts.actAs: it may not start steps as {account}"
    return AuthError(what, where=f"project {asked.project}", fix=fix)


def _missing(asked: Asked, refusal: Refusal) -> DualError:
    fix = "Check the id, the project and the region"
    return MissingError(f"404, not found ({refusal.said()})", where=f"project {asked.project}, {asked.region}", fix=fix)


def _taken(asked: Asked, refusal: Refusal) -> DualError:
    return ConflictError(f"409, it exists already ({refusal.said()})", where=asked.endpoint, fix="Choose another name")


def _exhausted(asked: Asked, refusal: Refusal) -> DualError:
    named = [str(each.get("subject") or each.get("description")) for each in refusal.violations("violations")]
    quota = refusal.metadata("quota_metric") or ", ".join(named)
    fix = f"Try again later, or ask for more: https://console.cloud.google.com/iam-admin/quotas?project={asked.project}"
    of = f" '{quota}'" if quota else ""
    return QuotaError(f"429, the quota{of} is used up ({refusal.said()})", where=f"project {asked.project}, {asked.region}", fix=fix)


def _refused(asked: Asked, refusal: Refusal) -> DualError:
    wrong = [f"{each.get('field')}: {str(each.get('description', '')).rstrip('.')}" for each in refusal.violations("fieldViolations")]
    word = str(refusal.error().get("status", "")).replace("_", " ").lower()
    what = "; ".join(wrong) or refusal.said() or "no reason is given"
    head = f"{refusal.status}, Google refuses it{f' as {word}' if word else ''}"
    return UsageError(f"{head}: {what}", where=asked.endpoint, fix="Correct what it names")


_FAULTS: Mapping[int, Callable[[Asked, Refusal], DualError]] = {
    401: _unknown,
    403: _forbidden,
    404: _missing,
    409: _taken,
    429: _exhausted,
}


def _member(asked: Asked) -> str:
    name = asked.identity.removesuffix(" (impersonated)")
    if "@" not in name:
        return "user:YOU"
    return f"serviceAccount:{name}" if name.endswith("gserviceaccount.com") else f"user:{name}"
