"""A login at Dex, as a browser does it: follow the redirects to its page, post name and password, keep the session's cookie.

Works with oauth2-proxy and with the older oidc-authservice in front of Kubeflow. The steps are those of Kubeflow's own documents:
https://www.kubeflow.org/docs/components/pipelines/user-guides/core-functions/connect-api/
"""

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode, urlsplit, urlunsplit

import httpx

from components.core.errors import UsageError
from pipelines.submission.kubeflow.faults import Asked, AuthError, transport_fault


@dataclass(frozen=True)
class Login:
    """Name and password at one of Dex's connectors."""

    username: str
    password: str = field(repr=False)
    connector: str = "local"
    ca_file: Path | None = None
    timeout: float = 30.0


def log_in(host: str, login: Login) -> str:
    """The session's cookies as a header, `name=value; name=value`; empty if the host asks nobody to log in.

    Raises `AuthError` if Dex refuses the login, `UsageError` if what answers is no login page that takes a name and a password.
    """
    tls = ssl.create_default_context(cafile=str(login.ca_file) if login.ca_file else None)
    try:
        with httpx.Client(follow_redirects=True, timeout=login.timeout, verify=tls) as client:
            return _cookies(client, host, login)
    except httpx.HTTPError as error:
        raise transport_fault(error, Asked(host, f"a login at Dex as {login.username}", "Check the address")) from None


def _cookies(client: httpx.Client, host: str, login: Login) -> str:
    page = _login_page(client, host, login)
    if page is None:
        return ""
    answer = client.post(page, data={"login": login.username, "password": login.password})
    if answer.status_code >= 400:
        raise _refused(f"Dex answers {answer.status_code} to the login", login, host)
    if not answer.history:
        # Dex shows its page again, with a message, if it does not know the two.
        raise _refused("Dex does not take this name and password", login, host)
    if answer.url.path.endswith("/approval"):
        answer = client.post(answer.url, data={"approval": "approve"})
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in client.cookies.jar)
    if not cookies:
        raise _refused(f"the login ended at {_bare(answer.url)} without a session cookie", login, host)
    return cookies


def _login_page(client: httpx.Client, host: str, login: Login) -> httpx.URL | None:
    """Address of the page with the form; None if the host lets everybody in."""
    answer = client.get(host)
    if answer.status_code in (401, 403) and not answer.history:
        # oauth2-proxy shows a page with a button instead of a redirect.
        answer = client.get(_at(answer.url, "/oauth2/start", urlencode({"rd": urlsplit(host).path or "/"})))
    if not answer.history:
        return None
    url = answer.url
    if url.path.endswith("/auth"):
        answer = client.get(_at(url, f"{url.path}/{login.connector}", url.query.decode()))
    elif (connector := re.search(r"/auth/([^/]+)(?:/login)?$", url.path)) and connector[1] != login.connector:
        raise UsageError(f"the login page is that of Dex's connector '{connector[1]}'", where=host, fix="Set DUAL_KFP_DEX_CONNECTOR")
    if not re.search(r"/auth/[^/]+(/login)?$", answer.url.path) or answer.status_code >= 400:
        fix = "Set DUAL_KFP_COOKIE to a browser's session cookie, or use a token"
        raise UsageError(f"the login ends at {_bare(answer.url)}, which is no login page of Dex", where=host, fix=fix)
    return answer.url


def _at(url: httpx.URL, path: str, query: str) -> str:
    return urlunsplit((url.scheme, url.netloc.decode(), path, query, ""))


def _bare(url: httpx.URL) -> str:
    # The query carries state and codes.
    return f"{url.scheme}://{url.netloc.decode()}{url.path}"


def _refused(what: str, login: Login, host: str) -> AuthError:
    fix = "Check DUAL_KFP_USERNAME, DUAL_KFP_PASSWORD and DUAL_KFP_DEX_CONNECTOR"
    return AuthError(f"{what} (as {login.username}, connector {login.connector})", where=host, fix=fix)
