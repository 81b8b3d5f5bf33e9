"""A stand-in for the Google APIs that the doctor asks: tokens for a service account's key, and REST answers that a test decides.

Tokens: RFC 7523, https://developers.google.com/identity/protocols/oauth2/service-account; errors: https://cloud.google.com/apis/design/errors
"""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.rollout.web import Asked, Reply, WebServer, reply

ACCOUNT = "tester@my-project.iam.gserviceaccount.com"
SERVICES = ("aiplatform", "cloudresourcemanager", "iam", "firebase", "firebasestorage")
Answer = Callable[[Asked], Reply]


@dataclass
class Google:
    """Answers by path; what is not in it is 404."""

    answers: dict[str, Reply | Answer] = field(default_factory=dict)
    refuse_tokens: bool = False
    asked: list[Asked] = field(default_factory=list)

    def answer(self, asked: Asked) -> Reply:
        """One request: a token, or an answer for whoever has one."""
        if asked.path == "/token":
            return self._token(asked)
        self.asked.append(asked)
        if "Bearer the-token" not in asked.headers.values():
            return error(401, "Request had invalid authentication credentials.")
        found = self.answers.get(asked.path.partition("?")[0], error(404, "Requested entity was not found."))
        return found(asked) if callable(found) else found

    def _token(self, asked: Asked) -> Reply:
        """Only an assertion that the account's key signed buys a token."""
        form = parse_qs(asked.body.decode())
        head, body, signature = form["assertion"][0].split(".")
        KEY.public_key().verify(_decoded(signature), f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256())
        assert json.loads(_decoded(body))["iss"] == ACCOUNT
        if self.refuse_tokens:
            return reply({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}, 400)
        return reply({"access_token": "the-token", "expires_in": 3600, "token_type": "Bearer"})


KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def error(code: int, message: str, reason: str = "", **metadata: str) -> Reply:
    """Google's error object."""
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "metadata": metadata}] if reason else []
    return reply({"error": {"code": code, "message": message, "details": details}}, code)


@contextmanager
def fake_google(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    """Credentials of a service account whose tokens, and every API, come from a server of the test."""
    google = Google()
    with WebServer(google.answer) as server:
        pem = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
        content: dict[str, Any] = {"type": "service_account", "project_id": "my-project", "client_email": ACCOUNT, "client_id": "1"}
        file = folder / "key.json"
        file.write_text(json.dumps({**content, "private_key_id": "k", "private_key": pem, "token_uri": f"{server.url}/token"}))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        for service in SERVICES:
            monkeypatch.setenv(f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{service.upper()}", f"{server.url}/{service}/")
        yield google


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
