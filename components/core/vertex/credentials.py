"""Who asks Google: application default credentials, another service account's by impersonation, or nobody (an endpoint on this machine)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from components.core.errors import UnavailableError
from components.core.vertex.connection import Connection
from components.core.vertex.faults import AuthError

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
LOGIN = "gcloud auth application-default login   (or: export GOOGLE_APPLICATION_CREDENTIALS=KEY.json, or Workload Identity)"


@dataclass
class Credentials:
    """An identity; its token is made when it is first needed, and again before it expires."""

    name: str
    """In words, without any secret."""
    project: str
    """The project that the credentials bring along; may be empty."""
    google: Any = None
    """Credentials of google-auth; None: nobody asks."""
    timeout: float = 30.0
    account: str = ""
    """The impersonated account, or empty."""

    def headers(self, *, renew: bool = False) -> dict[str, str]:
        """The token, and the project whose quota counts where the credentials name one.

        `AuthError` if Google gives no token, `UnavailableError` if it does not answer.
        """
        if self.google is None:
            return {}
        if renew or not self.google.valid:
            with _explained(self.account):
                self.google.refresh(_timed(self.timeout))
        named: dict[str, str] = {}
        self.google.apply(named)
        return named

    def __repr__(self) -> str:
        """Without the token."""
        return f"Credentials({self.name})"


def find_credentials(connection: Connection) -> Credentials:
    """The identity that the connection asks for; nothing is sent yet, but to a metadata server. `AuthError` if there is none."""
    if connection.auth == "none":
        return Credentials("no identity", "")
    import google.auth

    with _explained(""):
        found, project = google.auth.default(scopes=[_SCOPE])
    project = os.environ.get("GOOGLE_CLOUD_PROJECT", "") or project or ""
    if connection.impersonate:
        return _impersonated(connection, found, project)
    name = getattr(found, "service_account_email", "") or getattr(found, "account", "") or "application default credentials"
    return Credentials(str(name), str(project), found, connection.timeout)


def _impersonated(connection: Connection, source: Any, project: str) -> Credentials:
    from google.auth import impersonated_credentials

    made = impersonated_credentials.Credentials(source, target_principal=connection.impersonate, target_scopes=[_SCOPE])
    return Credentials(f"{connection.impersonate} (impersonated)", project, made, connection.timeout, connection.impersonate)


@contextmanager
def _explained(account: str) -> Iterator[None]:
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError

    try:
        yield
    except DefaultCredentialsError as error:
        missing = "were not found" in str(error)
        what = "there are no application default credentials" if missing else f"the credentials can't be read ({_first(error)})"
        raise AuthError(what, where="Google Cloud", fix=LOGIN) from None
    except TransportError as error:
        fix = "Check the network, proxies and DNS"
        raise UnavailableError(f"no token: Google does not answer ({_first(error)})", where="Google Cloud", fix=fix) from None
    except GoogleAuthError as error:
        fix = LOGIN if not account else _allow(account)
        whose = f" for {account}" if account else ""
        raise AuthError(f"the credentials give no token{whose} ({_first(error)})", where="Google Cloud", fix=fix) from None


def _allow(account: str) -> str:
    role = "--role=roles/iam.serviceAccountTokenCreator"
    return f"gcloud iam service-accounts add-iam-policy-binding {account} --member=user:YOU {role}"


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300].rstrip(".")


def _timed(seconds: float) -> Any:
    """A transport that waits no longer than one answer may take."""
    from google.auth.transport.requests import Request

    request: Any = Request()

    def send(*arguments: Any, **options: Any) -> Any:
        return request(*arguments, **{**options, "timeout": seconds})

    return send
