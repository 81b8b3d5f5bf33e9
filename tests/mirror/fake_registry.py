"""A strict stand-in for a container registry: pull and push as specified, with tokens; it refuses what registries refuse.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md and https://distribution.github.io/distribution/spec/auth/token/
"""

import base64
import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

_PATH = re.compile(r"^/v2/(?P<repository>.+)/(?P<kind>manifests|blobs/uploads|blobs)/(?P<rest>.*)$")


class Stored:
    """What the registry holds, and how it behaves."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.owned: set[tuple[str, str]] = set()
        """(repository, digest) of the blobs that a repository may give."""
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.uploads: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.lock = threading.Lock()
        self.address = ""
        self.user: tuple[str, str] | None = None
        """With a user, every request needs a token that this user (or, to pull, nobody) has bought."""
        self.identity_token = ""
        self.tokens: dict[str, str] = {}
        self.mounts = True
        self.ranges = True
        self.sent = 0
        """Bytes of blobs that went out."""
        self.cut_reads_after: list[int] = []
        """Bytes after which the next answers to GET of a blob break off."""
        self.fail: list[int] = []
        """Status codes of the next requests to blobs and manifests."""
        self.damage = b""
        """Given instead of the start of every blob."""

    def add_blob(self, repository: str, data: bytes) -> str:
        """Put a blob there, as if it had been pushed."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        self.owned.add((repository, digest))
        return digest

    def add_manifest(self, repository: str, tag: str, media_type: str, body: bytes) -> str:
        """Put a manifest there."""
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        for name in (digest, tag):
            self.manifests[repository, name] = (media_type, body)
        return digest

    def pushed(self, method: str) -> list[str]:
        """The requests of one method, so far."""
        return [each for each in self.requests if each.startswith(f"{method} ")]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    stored: Stored

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the log quiet."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/token":
            return self._token({key: values[-1] for key, values in parse_qs(url.query).items()})
        return self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        if urlsplit(self.path).path == "/token":
            form = {key: values[-1] for key, values in parse_qs(self._body().decode()).items()}
            return self._token(form)
        return self._serve()

    def _serve(self) -> None:
        url = urlsplit(self.path)
        body = self._body()
        self.stored.requests.append(f"{self.command} {self.path.partition('?')[0]}")
        found = _PATH.match(url.path)
        if found is None:
            return self._error(404, "NAME_UNKNOWN")
        repository, kind, rest = found["repository"], found["kind"], found["rest"]
        if not self._allowed(repository):
            return self._challenge(repository)
        if self.stored.fail:
            return self._error(self.stored.fail.pop(0), "UNAVAILABLE")
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        if kind == "manifests":
            return self._manifest(repository, rest, body)
        if kind == "blobs":
            return self._blob(repository, rest)
        return self._upload(repository, rest, query, body)

    def _allowed(self, repository: str) -> bool:
        if self.stored.user is None:
            return True
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        scope = self.stored.tokens.get(token, "") if scheme == "Bearer" else ""
        action = "pull" if self.command in ("GET", "HEAD") else "push"
        return any(each.startswith(f"repository:{repository}:") and action in each for each in scope.split())

    def _challenge(self, repository: str) -> None:
        action = "pull" if self.command in ("GET", "HEAD") else "pull,push"
        realm = f'Bearer realm="http://{self.headers["Host"]}/token",service="fake",scope="repository:{repository}:{action}"'
        self._error(401, "UNAUTHORIZED", {"WWW-Authenticate": realm})

    def _token(self, asked: dict[str, str]) -> None:
        user = None
        scheme, _, value = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            user = tuple(base64.b64decode(value).decode().split(":", 1))
        # Several scopes: `scope` repeated, or in one with spaces.
        scopes = [*parse_qs(urlsplit(self.path).query).get("scope", []), *([asked["scope"]] if self.command == "POST" else [])]
        known = user == self.stored.user or (self.stored.identity_token and asked.get("refresh_token") == self.stored.identity_token)
        self.stored.requests.append(f"TOKEN {' '.join(scopes)} as {'user' if known else 'nobody'}")
        if not known and (user is not None or any("push" in scope for scope in scopes)):
            return self._error(401, "UNAUTHORIZED")
        token = f"token-{len(self.stored.tokens)}"
        self.stored.tokens[token] = " ".join(scopes)
        return self._answer(200, json.dumps({"token": token, "expires_in": 300}).encode(), {"Content-Type": "application/json"})

    def _manifest(self, repository: str, version: str, body: bytes) -> None:
        if self.command in ("GET", "HEAD"):
            found = self.stored.manifests.get((repository, version))
            if found is None:
                return self._error(404, "MANIFEST_UNKNOWN")
            if found[0] not in self.headers.get("Accept", ""):
                return self._error(404, "MANIFEST_UNKNOWN")
            digest = f"sha256:{hashlib.sha256(found[1]).hexdigest()}"
            return self._answer(200, found[1], {"Content-Type": found[0], "Docker-Content-Digest": digest})
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        document = json.loads(body)
        parts = [document["config"], *document["layers"]] if "config" in document else []
        missing = [each["digest"] for each in parts if (repository, each["digest"]) not in self.stored.owned]
        missing += [each["digest"] for each in document.get("manifests", []) if (repository, each["digest"]) not in self.stored.manifests]
        if missing:
            return self._error(400, "MANIFEST_BLOB_UNKNOWN")
        if version.startswith("sha256:") and version != digest:
            return self._error(400, "DIGEST_INVALID")
        with self.stored.lock:
            for name in (digest, version):
                self.stored.manifests[repository, name] = (self.headers["Content-Type"], body)
        return self._answer(201, b"", {"Docker-Content-Digest": digest, "Location": f"/v2/{repository}/manifests/{digest}"})

    def _blob(self, repository: str, digest: str) -> None:
        if (repository, digest) not in self.stored.owned:
            return self._error(404, "BLOB_UNKNOWN")
        data = self.stored.damage + self.stored.blobs[digest][len(self.stored.damage) :]
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-")) if self.stored.ranges else 0
        answer = data[start:]
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        if self.command == "GET" and self.stored.cut_reads_after:
            self._head(206 if start else 200, len(answer), headers)
            cut = answer[: self.stored.cut_reads_after.pop(0)]
            self.wfile.write(cut)
            self.stored.sent += len(cut)
            self.close_connection = True
            return None
        self.stored.sent += len(answer) if self.command == "GET" else 0
        return self._answer(206 if start else 200, answer, headers)

    def _upload(self, repository: str, session: str, query: dict[str, str], body: bytes) -> None:
        if self.command == "POST":
            return self._begin(repository, query)
        if session not in self.stored.uploads:
            return self._error(404, "BLOB_UPLOAD_UNKNOWN")
        if self.command == "DELETE":
            del self.stored.uploads[session]
            return self._answer(204, b"", {})
        self.stored.uploads[session] += body
        if self.command == "PATCH":
            return self._answer(202, b"", {"Location": f"/v2/{repository}/blobs/uploads/{session}?state=2"})
        return self._finish(repository, session, query)

    def _begin(self, repository: str, query: dict[str, str]) -> None:
        owned = (query.get("from", ""), query.get("mount", "")) in self.stored.owned
        if owned and self.stored.mounts:
            self.stored.owned.add((repository, query["mount"]))
            return self._answer(201, b"", {"Location": f"/v2/{repository}/blobs/{query['mount']}"})
        session = f"upload-{len(self.stored.uploads)}"
        self.stored.uploads[session] = b""
        # A relative address with a query of its own, as the specification allows.
        return self._answer(202, b"", {"Location": f"/v2/{repository}/blobs/uploads/{session}?state=1"})

    def _finish(self, repository: str, session: str, query: dict[str, str]) -> None:
        data = self.stored.uploads[session]
        if query.get("state") != "2" or f"sha256:{hashlib.sha256(data).hexdigest()}" != query.get("digest"):
            return self._error(400, "DIGEST_INVALID")
        del self.stored.uploads[session]
        with self.stored.lock:
            digest = self.stored.add_blob(repository, data)
        return self._answer(201, b"", {"Docker-Content-Digest": digest, "Location": f"/v2/{repository}/blobs/{digest}"})

    def _body(self) -> bytes:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionResetError("the client broke off")
        return body

    def _error(self, code: int, name: str, headers: dict[str, str] | None = None) -> None:
        body = json.dumps({"errors": [{"code": name, "message": name.lower().replace("_", " ")}]}).encode()
        self._answer(code, body, {"Content-Type": "application/json", **(headers or {})})

    def _answer(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        self._head(code, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, code: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        if code != 204:
            self.send_header("Content-Length", str(length))
        self.end_headers()


class Server(ThreadingHTTPServer):
    """Says nothing of clients that go away."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def fake_registry() -> Iterator[Stored]:
    """Run the stand-in on the loopback; what it holds, and its address."""
    stored = Stored()
    server = Server(("127.0.0.1", 0), type("RegistryHandler", (Handler,), {"stored": stored}))
    stored.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield stored
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
