"""Requests to one registry, as whom they need to be: the token flow and the errors of the distribution specification.

https://distribution.github.io/distribution/spec/auth/token/ and opencontainers/distribution-spec, "Error Codes".
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import parse_http_list, parse_keqv_list

import httpx

from components.core.download import Patience
from components.core.errors import DualError, MissingObjectError, UsageError
from pipelines.mirror.credentials import Credentials, find_credentials
from pipelines.mirror.manifest import PassingError
from pipelines.mirror.reference import DOCKER_HUB

_CLIENT = "dual-deploy"
_LIFETIME = 60.0
"""Seconds that a token is good for if its server doesn't say (token specification)."""


class Session:
    """One registry over HTTP. `plain` allows it without TLS: for registries on one's own machine."""

    def __init__(self, registry: str, *, plain: bool = False, patience: Patience | None = None) -> None:
        """Remember the registry; nothing is asked yet."""
        self.registry, self.plain, self.patience = registry, plain, patience or Patience()
        host = "registry-1.docker.io" if registry == DOCKER_HUB else registry
        self.base = f"{'http' if plain else 'https'}://{host}"
        # A token of the registry never follows a redirect to the storage behind it: httpx drops it when the host changes.
        timeout = httpx.Timeout(self.patience.timeout, connect=min(8.0, self.patience.timeout))
        self.http = httpx.Client(timeout=timeout, follow_redirects=True, headers={"Accept-Encoding": "identity"})
        self._tokens: dict[str, tuple[str, float]] = {}

    def ask(self, method: str, path: str, scope: str, **request: Any) -> httpx.Response:
        """The answer to a request without a body that moves; errors as in `stream`."""
        with self.stream(method, path, scope, **request) as answer:
            answer.read()
            return answer

    @contextmanager
    def stream(self, method: str, path: str, scope: str, *, accepted: tuple[int, ...] = (), **request: Any) -> Iterator[httpx.Response]:
        """The answer, its body unread, to a request that needs `scope` (`repository:NAME:pull[,push]`, several with spaces).

        Raises `PassingError`, `MissingObjectError`, or `DualError` with what the registry says, except for the codes in `accepted`.
        """
        url = path if "://" in path else f"{self.base}{path}"
        headers = dict(request.pop("headers", {}))
        try:
            with self.http.stream(method, url, headers={**headers, **self._authorization(url, scope)}, **request) as answer:
                if answer.status_code != httpx.codes.UNAUTHORIZED or "content" in request:
                    yield self._checked(answer, accepted)
                    return
                answer.read()
            self._log_in(answer, scope)
            with self.http.stream(method, url, headers={**headers, **self._authorization(url, scope)}, **request) as answer:
                yield self._checked(answer, accepted)
        except httpx.TransportError as error:
            raise PassingError(f"{self.registry} can't be reached or broke off ({_first_line(error)})") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DualError(f"is not understood ({_first_line(error)})", where=self.registry, fix="Check the address") from None

    def pause(self, failures: int) -> None:
        """Wait before the next try, longer each time."""
        time.sleep(self.patience.first_wait * 2 ** (failures - 1))

    def _authorization(self, url: str, scope: str) -> dict[str, str]:
        value, until = self._tokens.get(scope, ("", 0.0))
        # An upload may be sent to another host, which has no business with our token.
        same = urlsplit(url).netloc == urlsplit(self.base).netloc
        return {"Authorization": value} if value and same and time.monotonic() < until else {}

    def _log_in(self, answer: httpx.Response, scope: str) -> None:
        """Take what the registry's challenge asks for, once for each scope."""
        kind, _, rest = answer.headers.get("www-authenticate", "").partition(" ")
        repository = scope.split(" ", maxsplit=1)[0].removeprefix("repository:").rpartition(":")[0]
        credentials = find_credentials(self.registry, repository)
        if kind.lower() == "bearer":
            self._tokens[scope] = self._token(parse_keqv_list(parse_http_list(rest)), scope, credentials)
        elif kind.lower() == "basic" and credentials is not None:
            self._tokens[scope] = (_basic(credentials), float("inf"))
        else:
            fix = f"Log in first: docker login {self.registry}"
            raise DualError(f"wants {kind or 'another'} authentication, and no credentials are stored", where=self.registry, fix=fix)

    def _token(self, challenge: Mapping[str, str], scope: str, credentials: Credentials | None) -> tuple[str, float]:
        realm = challenge.get("realm", "")
        if urlsplit(realm).scheme != "https" and not self.plain:
            raise UsageError(f"sends credentials to '{realm}', which is not https", where=self.registry, fix="Don't use this registry")
        wanted = {"service": challenge.get("service", ""), "scope": scope.split(" ")}
        if credentials and credentials.identity_token:
            form = {"grant_type": "refresh_token", "client_id": _CLIENT, "refresh_token": credentials.identity_token}
            answer = self.http.post(realm, data={**form, "service": wanted["service"], "scope": scope})
        else:
            headers = {"Authorization": _basic(credentials)} if credentials else {}
            answer = self.http.get(realm, params=wanted, headers=headers)
        told = self._checked(answer, ()).json()
        token = told.get("token") or told.get("access_token") or ""
        # A minute is what the specification guarantees; a little less, so that none expires on its way.
        return f"Bearer {token}", time.monotonic() + float(told.get("expires_in") or _LIFETIME) * 0.9

    def _checked(self, answer: httpx.Response, accepted: tuple[int, ...]) -> httpx.Response:
        if answer.is_success or answer.status_code in accepted:
            return answer
        status = f"{answer.status_code} {answer.reason_phrase}".rstrip()
        if answer.is_server_error or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise PassingError(f"{self.registry} answered {status}")
        reason = f"{status}{_reasons(answer)}"
        where = f"{self.registry}{urlsplit(str(answer.url)).path}"
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise MissingObjectError(f"is not there ({reason})", where=where, fix="Check the name, and whether you may read it")
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            fix = f"Log in as somebody who may: docker login {self.registry}"
            raise DualError(f"refuses ({reason})", where=where, fix=fix)
        raise DualError(f"refuses ({reason})", where=where, fix="See what the registry says about it")


def _basic(credentials: Credentials) -> str:
    return httpx.BasicAuth(credentials.user, credentials.password)._auth_header


def _reasons(answer: httpx.Response) -> str:
    """`: CODE message` of each error in a registry's answer."""
    try:
        errors = (answer.read(), answer.json())[1].get("errors", [])
        return "".join(f": {error.get('code', '')} {error.get('message', '')}".rstrip() for error in errors)[:500]
    except (ValueError, AttributeError, httpx.HTTPError):
        return ""


def _first_line(error: Any) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300].rstrip(".")
