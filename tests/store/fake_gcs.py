"""A strict stand-in for the parts of Cloud Storage's JSON API that the store uses; every precondition is honoured, pages are short.

https://cloud.google.com/storage/docs/json_api/v1/objects
"""

import base64
import hashlib
import itertools
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c

_OBJECT = re.compile(r"^(?:/download)?/storage/v1/b/([^/]+)/o/(.+)$")
_PAGE = 3


class Bucket:
    """Objects with generations; one lock makes each request atomic."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, int, dict[str, str]]] = {}
        self.lock = threading.Lock()
        self.generations = itertools.count(1_700_000_000_000_001)
        self.sessions: dict[str, tuple[dict[str, Any], str]] = {}
        self.requests: list[str] = []
        self.headers: dict[str, dict[str, str]] = {}
        """What was said of an object, by name."""
        self.faults: dict[int, int] = {}
        """Number of a request (from 1) → status that it is answered with, without effect."""
        self.count = 0
        self.lose_answers = 0
        """Uploads that take effect and are answered 503, so that the client repeats them."""


class Handler(BaseHTTPRequestHandler):
    """One request; the server holds the bucket."""

    protocol_version = "HTTP/1.1"
    bucket: Bucket

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the log quiet."""

    def parse_request(self) -> bool:
        """Answer a planned fault before anything else."""
        if not super().parse_request():
            return False
        with self.bucket.lock:
            self.bucket.count += 1
            fault = self.bucket.faults.get(self.bucket.count)
        if fault is None:
            return True
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._error(fault, "Planned")
        return False

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.bucket.requests.append(f"GET {url.path}")
        match = _OBJECT.match(url.path)
        if match is None:
            return self._list(query)
        with self.bucket.lock:
            found = self.bucket.objects.get(unquote(match[2]))
        if found is None:
            return self._error(404, "No such object")
        if query.get("alt") == "media":
            digest = base64.b64encode(hashlib.md5(found[0]).digest()).decode()  # noqa: S324
            said = self.bucket.headers.get(unquote(match[2]), {})
            return self._answer(200, found[0], {"X-Goog-Generation": str(found[1]), "X-Goog-Hash": f"md5={digest}", **said})
        return self._json(resource(unquote(match[2]), *found))

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.bucket.requests.append(f"POST {query.get('uploadType')} ifGenerationMatch={query.get('ifGenerationMatch')}")
        if query.get("uploadType") == "resumable":
            session = f"s{len(self.bucket.sessions)}"
            wanted = {"contentType": self.headers.get("X-Upload-Content-Type"), **json.loads(body)}
            self.bucket.sessions[session] = (wanted, query.get("ifGenerationMatch", ""))
            return self._answer(200, b"", {"Location": f"http://{self.headers['Host']}/upload/session?id={session}"})
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts: Any = message_from_bytes(head + body, policy=HTTP)
        metadata, media = parts.get_payload()
        # The service takes the type from the media's own head unless the metadata says one.
        wanted = {"contentType": media["Content-Type"], **json.loads(metadata.get_payload(decode=True))}
        return self._write(wanted, media_of(body, media.get_payload(decode=True)), query.get("ifGenerationMatch", ""))

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        session = self.bucket.sessions[parse_qs(urlsplit(self.path).query)["id"][0]]
        return self._write(session[0], data, session[1])

    def do_DELETE(self) -> None:
        match = _OBJECT.match(urlsplit(self.path).path)
        assert match is not None
        with self.bucket.lock:
            found = self.bucket.objects.pop(unquote(match[2]), None)
        return self._answer(204, b"", {}) if found else self._error(404, "No such object")

    def _write(self, wanted: dict[str, Any], data: bytes, match: str) -> None:
        name, metadata = wanted["name"], wanted.get("metadata", {})
        with self.bucket.lock:
            current = self.bucket.objects.get(name, (b"", 0, {}))[1]
            if match and int(match) != current:
                return self._error(412, "At least one of the pre-conditions you specified did not hold.")
            generation = next(self.bucket.generations)
            self.bucket.objects[name] = (data, generation, metadata)
            said = {"Cache-Control": wanted.get("cacheControl"), "Content-Type": wanted.get("contentType")}
            self.bucket.headers[name] = {header: value for header, value in said.items() if value}
            if self.bucket.lose_answers:
                self.bucket.lose_answers -= 1
                return self._error(503, "Backend Error")
        return self._json(resource(name, data, generation, metadata))

    def _list(self, query: dict[str, str]) -> None:
        with self.bucket.lock:
            names = sorted(name for name in self.bucket.objects if name.startswith(query.get("prefix", "")))
            start = int(query.get("pageToken", 0))
            page = [resource(name, *self.bucket.objects[name]) for name in names[start : start + _PAGE]]
        more = {"nextPageToken": str(start + _PAGE)} if start + _PAGE < len(names) else {}
        self._json({"kind": "storage#objects", "items": page, **more})

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, code: int, message: str) -> None:
        self._answer(code, json.dumps({"error": {"code": code, "message": message}}).encode(), {"Content-Type": "application/json"})

    def _answer(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        if code != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def media_of(body: bytes, parsed: bytes) -> bytes:
    """The media part byte for byte: the e-mail parser rewrites line ends."""
    boundary = body[: body.index(b"\r\n")]
    media = body.split(boundary, 2)[2].split(b"\r\n\r\n", 1)[1]
    return media[: media.rindex(b"\r\n" + boundary)]


def resource(name: str, data: bytes, generation: int, metadata: dict[str, str]) -> dict[str, Any]:
    """The JSON of an object."""
    checksum = base64.b64encode(google_crc32c.Checksum(data).digest()).decode()
    facts = {"kind": "storage#object", "name": name, "generation": str(generation), "size": str(len(data)), "crc32c": checksum}
    return facts | {"metadata": metadata}


@contextmanager
def fake_gcs() -> Iterator[tuple[str, Bucket]]:
    """Run the stand-in; its address and what is in it."""
    bucket = Bucket()
    handler = type("BucketHandler", (Handler,), {"bucket": bucket})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", bucket
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
