"""What stands in front of an installation: token checks, Dex with oauth2-proxy or oidc-authservice, pages instead of an API."""

import secrets
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlencode

from tests.kubeflow.fake_kfp import Answer, Guard, Request, as_json, as_page, redirect

USER, PASSWORD = "user@example.com", "correct horse"
_FORM = "<html><title>dex</title><form method=post>Log in: <input name=login><input name=password type=password></form></html>"


def tokens(*valid: str, status: int = 401) -> Guard:
    """Only these bearer tokens."""

    def guard(request: Request) -> Answer | None:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return None if given in valid else as_json({"error": "Unauthenticated", "message": f"invalid token {given}"}, status)

    return guard


def always(answer: Answer) -> Guard:
    """The same to everybody."""
    return lambda _: answer


@dataclass
class Dex:
    """Dex behind a proxy that keeps sessions. Cookies, codes and requests are good once, or as long as they are kept here."""

    prefix: str = "/pipeline"
    cookie: str = "oauth2_proxy_kubeflow"
    connector: str = "local"
    chooser: bool = True
    """Whether Dex asks for the connector first (it has several)."""
    approval: bool = False
    button: bool = False
    """Whether the proxy shows a page with a button (403) instead of a redirect."""
    sessions: set[str] = field(default_factory=set)
    _pending: set[str] = field(default_factory=set)
    _codes: set[str] = field(default_factory=set)

    def guard(self, request: Request) -> Answer | None:
        """None for whoever has a session; else the next step of the login."""
        if self._has_session(request):
            return None
        pages = {
            "/oauth2/start": lambda _: self._begin(),
            "/oauth2/callback": self._finish,
            "/dex/auth": self._choose,
            f"/dex/auth/{self.connector}": lambda asked: redirect(self._login(asked)),
            f"/dex/auth/{self.connector}/login": self._form,
            "/dex/approval": self._approve,
        }
        if (page := pages.get(request.path)) is not None:
            return page(request)
        if request.path.startswith("/dex/"):
            return as_page("<html>Requested resource does not exist.</html>", 404)
        return as_page("<html><title>Sign In</title><button>Sign in with dex</button></html>", 403) if self.button else self._begin()

    def _choose(self, request: Request) -> Answer:
        return as_page("<html><title>dex</title>Log in with</html>") if self.chooser else redirect(self._login(request))

    def _has_session(self, request: Request) -> bool:
        return any(f"{self.cookie}={each}" in request.headers.get("Cookie", "") for each in self.sessions)

    def _begin(self) -> Answer:
        self._pending.add(state := secrets.token_hex(8))
        return redirect("/dex/auth?" + urlencode({"client_id": "kubeflow-oidc-authservice", "state": state}))

    def _login(self, request: Request) -> str:
        return f"/dex/auth/{self.connector}/login?" + urlencode({"state": request.query.get("state", "")})

    def _form(self, request: Request) -> Answer:
        given = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        if request.method == "GET" or (given.get("login"), given.get("password")) != (USER, PASSWORD):
            return as_page(_FORM)
        state = request.query["state"]
        return Answer(303, b"", {"Location": f"/dex/approval?req={state}" if self.approval else self._callback(state)})

    def _approve(self, request: Request) -> Answer:
        if request.method == "GET":
            return as_page("<html><title>dex</title>Grant access</html>")
        return Answer(303, b"", {"Location": self._callback(request.query["req"])})

    def _callback(self, state: str) -> str:
        self._codes.add(code := secrets.token_hex(8))
        return "/oauth2/callback?" + urlencode({"code": code, "state": state})

    def _finish(self, request: Request) -> Answer:
        if request.query.get("code") not in self._codes or request.query.get("state") not in self._pending:
            return as_page("<html>Invalid state</html>", 403)
        self.sessions.add(session := secrets.token_hex(8))
        return redirect(self.prefix + "/", **{"Set-Cookie": f"{self.cookie}={session}; Path=/; HttpOnly"})
