"""Who asks: the headers that prove it, and how they are renewed when the server refuses them. No secret is ever printed."""

import os
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from components.core.errors import UsageError
from pipelines.submission.kubeflow.connection import AuthKind, Connection, ServiceAccountPath

_COMMAND_SECONDS = 60.0


class Credentials(Protocol):
    """An identity."""

    name: str
    """What it is and where it came from, for messages."""
    fix: str
    """What to do when the server refuses it."""

    def headers(self) -> dict[str, str]:
        """What to send with a request."""
        ...

    def renew(self) -> bool:
        """Get fresh ones; False if that can't change anything."""
        ...


@dataclass
class Nobody:
    """No credentials: an installation that trusts its network, or a port-forward."""

    name: str = "no credentials"
    fix: str = "Give some: a token (DUAL_KFP_TOKEN), a login (DUAL_KFP_USERNAME), a cookie (DUAL_KFP_COOKIE) or DUAL_KFP_IAP_CLIENT_ID"

    def headers(self) -> dict[str, str]:
        """Nothing."""
        return {}

    def renew(self) -> bool:
        """There is nothing to renew."""
        return False


@dataclass
class Bearer:
    """A token that `read` gets: again for each request if it is cheap, else when it is renewed."""

    name: str
    fix: str
    read: Callable[[], str]
    cheap: bool = True
    _last: str = field(default="", repr=False)

    def headers(self) -> dict[str, str]:
        """Authorization: Bearer."""
        if self.cheap or not self._last:
            self._last = self.read()
        return {"Authorization": f"Bearer {self._last}"}

    def renew(self) -> bool:
        """Read it again; False if it is still the same."""
        before, self._last = self._last, self.read()
        return self._last != before


@dataclass
class Cookie:
    """A session cookie; `login` gets a new one, where a password is known."""

    name: str
    fix: str
    read: Callable[[], str]
    _last: str = field(default="", repr=False)

    def headers(self) -> dict[str, str]:
        """Cookie, if there is one: an installation without a login page sets none."""
        self._last = self._last or self.read()
        return {"Cookie": self._last} if self._last else {}

    def renew(self) -> bool:
        """Log in, or read the file, again; False if nothing changed."""
        before, self._last = self._last, self.read()
        return self._last != before


def find_credentials(connection: Connection, host: str) -> Credentials:
    """The identity that the connection names; `UsageError` says what it lacks."""
    kind = connection.auth if connection.auth != "auto" else _first(connection)
    makers: dict[AuthKind, Callable[[Connection, str], Credentials]] = {
        "none": lambda *_: Nobody(),
        "token": _token,
        "service-account": _service_account,
        "iap": _iap,
        "dex": _dex,
        "cookie": _cookie,
    }
    return makers[kind](connection, host)


def _first(connection: Connection) -> AuthKind:
    order: list[tuple[AuthKind, object]] = [
        ("token", connection.token.get_secret_value() or connection.token_file or connection.token_command),
        ("cookie", connection.cookie.get_secret_value() or connection.cookie_file),
        ("iap", connection.iap_client_id),
        ("dex", connection.username),
        ("service-account", service_account_path().is_file()),
    ]
    found: list[AuthKind] = [kind for kind, given in order if given]
    return found[0] if found else "none"


def service_account_path() -> Path:
    """Where the projected token is: KF_PIPELINES_SA_TOKEN_PATH, as in Kubeflow's documents, or their default."""
    return Path(os.environ.get("KF_PIPELINES_SA_TOKEN_PATH") or ServiceAccountPath)


def _token(connection: Connection, _: str) -> Credentials:
    if text := connection.token.get_secret_value():
        return Bearer("a bearer token from DUAL_KFP_TOKEN", "Get a fresh token and set DUAL_KFP_TOKEN", lambda: text)
    if path := connection.token_file:
        return Bearer(f"a bearer token from {path}", f"Renew the token in {path}", lambda: read_secret(path))
    if command := connection.token_command:
        name = f"a bearer token from the command '{shlex.split(command)[0]}'"
        return Bearer(name, "Run the command by hand and look at what it prints", lambda: _run(command), cheap=False)
    raise _lacking("token", "Set DUAL_KFP_TOKEN, DUAL_KFP_TOKEN_FILE or DUAL_KFP_TOKEN_COMMAND")


def _service_account(_: Connection, __: str) -> Credentials:
    path = service_account_path()
    fix = "The token's audience must be pipelines.kubeflow.org, and a RoleBinding must allow the account in the runs' namespace"
    if not path.is_file():
        raise _lacking(f"service account token at {path}", "Mount one: a projected volume, audience pipelines.kubeflow.org")
    return Bearer(f"the pod's service account token from {path}", fix, lambda: read_secret(path))


def _cookie(connection: Connection, _: str) -> Credentials:
    fix = "Log in with a browser, copy the session cookie (authservice_session or oauth2_proxy_kubeflow) and set it as name=value"
    if text := connection.cookie.get_secret_value():
        return Cookie("the session cookie from DUAL_KFP_COOKIE", fix, lambda: text)
    if path := connection.cookie_file:
        return Cookie(f"the session cookie from {path}", fix, lambda: read_secret(path))
    raise _lacking("session cookie", "Set DUAL_KFP_COOKIE or DUAL_KFP_COOKIE_FILE")


def _dex(connection: Connection, host: str) -> Credentials:
    from pipelines.submission.kubeflow.dex import Login, log_in

    password = connection.password.get_secret_value() or (read_secret(connection.password_file) if connection.password_file else "")
    if not connection.username or not password:
        raise _lacking("login", "Set DUAL_KFP_USERNAME, and DUAL_KFP_PASSWORD or DUAL_KFP_PASSWORD_FILE")
    login = Login(connection.username, password, connection.dex_connector, connection.ca_file, connection.timeout)
    return Cookie(f"a login at Dex as {connection.username}", "Check name, password and connector", lambda: log_in(host, login))


def _iap(connection: Connection, _: str) -> Credentials:
    from pipelines.submission.kubeflow.iap import fetch_id_token

    if not (client := connection.iap_client_id):
        raise _lacking("OAuth client id of the Identity-Aware Proxy", "Set DUAL_KFP_IAP_CLIENT_ID")
    fix = "The account needs the role IAP-secured Web App User, and the client id must be the proxy's own"
    return Bearer("a Google ID token for the Identity-Aware Proxy", fix, lambda: fetch_id_token(client), cheap=False)


def read_secret(path: Path) -> str:
    """The text of a secret's file; `UsageError` if there is none."""
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"can't be read ({type(error).__name__})", where=str(path), fix="Check the path and its permissions") from None
    if not text:
        raise UsageError("is empty", where=str(path), fix="Write the secret into it")
    return text


def _run(command: str) -> str:
    where = f"token command '{shlex.split(command)[0]}'"
    try:
        done = subprocess.run(shlex.split(command), capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"did not run ({type(error).__name__})", where=where, fix="Check DUAL_KFP_TOKEN_COMMAND") from None
    if done.returncode or not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UsageError(f"printed no token (exit {done.returncode}): {last[:200]}", where=where, fix="Run it by hand")
    return done.stdout.strip()


def _lacking(what: str, fix: str) -> UsageError:
    return UsageError(f"there is no {what}", where="authentication", fix=fix)
