"""A strict stand-in for Firebase ML v1beta2, the token endpoint, Remote Config v1 and Cloud KMS, as far as publishers use them.

https://firebase.google.com/docs/reference/ml/rest/v1beta2/projects.models, https://firebase.google.com/docs/reference/remote-config/rest
"""

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

PROJECT = "flowers-123"
_MODELS = f"/v1beta2/projects/{PROJECT}/models"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
_PAGE = 2


@dataclass
class Service:
    """What the services hold, and were asked."""

    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    operations: dict[str, list[Any]] = field(default_factory=dict)
    """Name → [polls until it is done, model id]."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Objects by bucket/name, for the URLs that are signed."""
    polls: int = 2
    template: dict[str, Any] = field(default_factory=lambda: {"parameters": {"theirs": {"defaultValue": {"value": "1"}}}})
    version: int = 7
    overtakers: int = 0
    """Writes of somebody else that come between a read and the next write of the template."""
    statuses: dict[str, int] = field(default_factory=dict)
    """`METHOD` → status that every such request is answered with."""
    asked: list[str] = field(default_factory=list)
    key: Any = None
    """The private key of the key service."""
    damage: bool = False
    """Damage the next signature on its way."""


class Refused(Exception):
    """A status and Google's error body."""

    def __init__(self, code: int, status: str, message: str = "") -> None:
        self.code, self.body = code, {"error": {"code": code, "status": status, "message": message or status}}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    service: Service

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the log quiet."""

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PATCH = do_PUT = do_GET

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.service.asked.append(f"{self.command} {self.path.partition('?')[0]}")
        try:
            if status := self.service.statuses.get(self.command):
                raise Refused(status, "PERMISSION_DENIED" if status == 403 else "UNAVAILABLE")
            answer, headers = self._route(body)
            self._answer(200, answer, headers)
        except Refused as refused:
            self._answer(refused.code, refused.body, {})

    def _route(self, body: bytes) -> tuple[Any, dict[str, str]]:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path == "/token":
            assert "assertion" in parse_qs(body.decode())
            return {"access_token": "a-token", "expires_in": 3600, "token_type": "Bearer"}, {}
        if url.path.endswith("/remoteConfig"):
            return self._remote_config(body)
        if "/cryptoKeyVersions/" in url.path:
            return self._key(url.path, body), {}
        if self.headers.get("Authorization") != "Bearer a-token":
            raise Refused(401, "UNAUTHENTICATED")
        return self._ml(url.path, query, json.loads(body) if body else {}), {}

    # Firebase ML.

    def _ml(self, path: str, query: dict[str, str], body: dict[str, Any]) -> Any:
        if "/operations/" in path:
            return self._operation(path.removeprefix("/v1beta2/"))
        if path == _MODELS:
            return self._create(body) if self.command == "POST" else self._list(query)
        model = self.service.models.get(path.rpartition("/")[2])
        if model is None:
            raise Refused(404, "NOT_FOUND")
        return self._update(model, query, body) if self.command == "PATCH" else model

    def _list(self, query: dict[str, str]) -> Any:
        wanted = query.get("filter", "").removeprefix("displayName=")
        # What a filter lets through is the service's business: here, whatever begins like it.
        models = [model for model in self.service.models.values() if model["displayName"].startswith(wanted)]
        start = int(query.get("page_token", 0))
        more = {"nextPageToken": str(start + _PAGE)} if start + _PAGE < len(models) else {}
        return {"models": models[start : start + _PAGE], **more}

    def _create(self, body: dict[str, Any]) -> Any:
        if not _NAME.fullmatch(body.get("displayName", "")):
            raise Refused(400, "INVALID_ARGUMENT", "display_name")
        if any(model["displayName"] == body["displayName"] for model in self.service.models.values()):
            raise Refused(409, "ALREADY_EXISTS")
        number = f"{1000 + len(self.service.models)}"
        model = {"name": f"projects/{PROJECT}/models/{number}", "displayName": body["displayName"], "state": {}}
        self.service.models[number] = model
        return self._change(number, model, body)

    def _update(self, model: dict[str, Any], query: dict[str, str], body: dict[str, Any]) -> Any:
        if model.get("activeOperations"):
            raise Refused(400, "FAILED_PRECONDITION", "the model is locked")
        number = model["name"].rpartition("/")[2]
        if query.get("updateMask") == "state.published":
            model["state"] = {**model["state"], "published": body["state"]["published"]}
            return {"done": True, "response": model}
        return self._change(number, model, body)

    def _change(self, number: str, model: dict[str, Any], body: dict[str, Any]) -> Any:
        """Take the new file, and check it while the model is locked."""
        url = urlsplit(body["tfliteModel"]["gcsTfliteUri"])
        if "X-Goog-Signature" not in parse_qs(url.query):
            raise Refused(400, "INVALID_ARGUMENT", "the file can't be fetched")
        file = unquote(url.path).lstrip("/")
        data = self.service.files.get(file)
        if data is None:
            raise Refused(400, "INVALID_ARGUMENT", f"{file} is not there")
        operation = f"projects/{PROJECT}/operations/{len(self.service.operations)}"
        metadata = {"@type": "type.googleapis.com/google.firebase.ml.v1beta2.ModelOperationMetadata", "name": model["name"]}
        model |= {"tags": body.get("tags", []), "tfliteModel": {"gcsTfliteUri": f"gs://{file}", "sizeBytes": str(len(data))}}
        model["activeOperations"] = [{"name": operation}]
        model["state"] = {"published": model["state"].get("published", False)}
        if data[4:8] != b"TFL3":
            model["state"]["validationError"] = {"code": 3, "message": "the file is no TFLite model"}
        self.service.operations[operation] = [self.service.polls, number, metadata]
        return {"name": operation, "metadata": metadata}

    def _operation(self, name: str) -> Any:
        state = self.service.operations[name]
        state[0] -= 1
        if state[0] > 0:
            return {"name": name, "metadata": state[2]}
        model = self.service.models[state[1]]
        model.pop("activeOperations", None)
        return {"name": name, "metadata": state[2], "done": True, "response": model}

    # Remote Config.

    def _remote_config(self, body: bytes) -> tuple[Any, dict[str, str]]:
        tag = f"etag-{PROJECT}-{self.service.version}"
        if self.command == "GET":
            return self.service.template, {"ETag": tag}
        if self.headers.get("Content-Type") != "application/json; UTF-8":
            raise Refused(400, "INVALID_ARGUMENT", "Content-Type")
        if self.service.overtakers:
            self.service.overtakers -= 1
            self.service.version += 1
            raise Refused(412, "FAILED_PRECONDITION")
        if self.headers.get("If-Match") != tag:
            raise Refused(412 if self.headers.get("If-Match") else 400, "FAILED_PRECONDITION")
        self.service.template, self.service.version = json.loads(body), self.service.version + 1
        return self.service.template, {"ETag": f"etag-{PROJECT}-{self.service.version}"}

    # Cloud KMS.

    def _key(self, path: str, body: bytes) -> Any:
        import google_crc32c
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        if path.endswith("/publicKey"):
            pem = self.service.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            return {"pem": pem.decode(), "algorithm": "EC_SIGN_ED25519", "name": path.removeprefix("/v1/")}
        request = json.loads(body)
        message = base64.b64decode(request["data"])
        if int(request["dataCrc32c"]) != google_crc32c.value(message) or "digest" in request:
            raise Refused(400, "INVALID_ARGUMENT")
        signature = self.service.key.sign(message)
        checksum = str(google_crc32c.value(signature))
        sent = bytes([signature[0] ^ 1]) + signature[1:] if self.service.damage else signature
        return {"signature": base64.b64encode(sent).decode(), "signatureCrc32c": checksum, "verifiedDataCrc32c": True}

    def _answer(self, code: int, value: Any, headers: dict[str, str]) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        for name, text in {**headers, "Content-Type": "application/json", "Content-Length": str(len(data))}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def fake_firebase() -> Iterator[tuple[str, Service]]:
    """Run the stand-in; its address and its state."""
    service = Service()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("FirebaseHandler", (Handler,), {"service": service}))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
