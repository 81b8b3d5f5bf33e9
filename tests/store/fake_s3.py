"""A strict stand-in for the parts of S3's REST API that the store uses: conditional writes as documented; signatures are not checked.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html and API_CompleteMultipartUpload.html
"""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

_PAGE = 3
_LEAST_PART = 5 << 20
"""Bytes of every part but the last."""


class Bucket:
    """Objects by key; one lock makes each request atomic."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        """Parts of unfinished multipart uploads, by upload id and number."""
        self.lock = threading.Lock()
        self.requests: list[str] = []
        self.headers: dict[str, dict[str, str]] = {}
        """What was said of an object, by key."""
        self.faults: dict[int, int] = {}
        """Number of a request (from 1) → status that it is answered with, without effect."""
        self.count = 0
        self.conflicts = 0
        """Conditional writes to answer with 409, as S3 does for writes at the same moment."""


def etag(data: bytes) -> str:
    """S3's ETag of a plain upload."""
    return f'"{hashlib.md5(data).hexdigest()}"'  # noqa: S324


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

    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).split("/", 2)[2]

    def do_PUT(self) -> None:
        data, key = self.rfile.read(int(self.headers.get("Content-Length", 0))), self._key()
        query = parse_qs(urlsplit(self.path).query)
        if "uploadId" in query:
            return self._put_part(query["uploadId"][0], int(query["partNumber"][0]), data)
        absent, match = self.headers.get("If-None-Match"), self.headers.get("If-Match")
        self.bucket.requests.append(f"PUT {key} If-None-Match={absent} If-Match={match}")
        with self.bucket.lock:
            found = self.bucket.objects.get(key)
            if (absent or match) and self.bucket.conflicts:
                self.bucket.conflicts -= 1
                return self._error(409, "ConditionalRequestConflict")
            if match and found is None:
                return self._error(404, "NoSuchKey")
            if (absent == "*" and found is not None) or (match and found is not None and etag(found) != match):
                return self._error(412, "PreconditionFailed")
            self.bucket.objects[key] = data
            self.bucket.headers[key] = {name: value for name in ("Cache-Control", "Content-Type") if (value := self.headers.get(name))}
        return self._answer(200, b"", {"ETag": etag(data)})

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if "list-type" in query:
            return self._list(query)
        with self.bucket.lock:
            found, said = self.bucket.objects.get(self._key()), self.bucket.headers.get(self._key(), {})
        if found is None:
            return self._error(404, "NoSuchKey")
        return self._answer(200, found, {"ETag": etag(found), "Last-Modified": "Sat, 21 Nov 2026 06:00:00 GMT", **said})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if "uploads" in query:
            return self._begin_upload()
        if "uploadId" in query:
            return self._complete_upload(query["uploadId"][0], body)
        assert "delete" in query
        keys = [unescape(key) for key in re.findall("<Key>(.*?)</Key>", body)]
        with self.bucket.lock:
            for key in keys:
                self.bucket.objects.pop(key, None)
        # S3 says Deleted whether the key was there or not.
        deleted = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        return self._answer_xml(f"<DeleteResult>{deleted}</DeleteResult>")

    def _begin_upload(self) -> None:
        with self.bucket.lock:
            upload = f"upload-{len(self.bucket.uploads)}"
            self.bucket.uploads[upload] = {}
        self._answer_xml(f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>")

    def _put_part(self, upload: str, number: int, data: bytes) -> None:
        with self.bucket.lock:
            if upload not in self.bucket.uploads:
                return self._error(404, "NoSuchUpload")
            self.bucket.uploads[upload][number] = data
        return self._answer(200, b"", {"ETag": etag(data)})

    def _complete_upload(self, upload: str, body: str) -> None:
        with self.bucket.lock:
            parts = self.bucket.uploads.pop(upload, None)
            if parts is None:
                return self._error(404, "NoSuchUpload")
            named = re.findall(r"<Part>.*?</Part>", body, re.DOTALL)
            numbers = [int(re.findall(r"<PartNumber>(\d+)</PartNumber>", part)[0]) for part in named]
            tags = [unescape(re.findall(r"<ETag>(.*?)</ETag>", part)[0], {"&quot;": '"'}).strip('"') for part in named]
            if numbers != sorted(parts) or tags != [etag(parts[number]).strip('"') for number in numbers]:
                return self._error(400, "InvalidPart")
            if any(len(parts[number]) < _LEAST_PART for number in numbers[:-1]):
                return self._error(400, "EntityTooSmall")
            data = b"".join(parts[number] for number in numbers)
            self.bucket.objects[self._key()] = data
        return self._answer_xml(f"<CompleteMultipartUploadResult><ETag>{escape(etag(data))}</ETag></CompleteMultipartUploadResult>")

    def _answer_xml(self, text: str) -> None:
        self._answer(200, f"<?xml version='1.0'?>{text}".encode(), {"Content-Type": "application/xml"})

    def _list(self, query: dict[str, str]) -> None:
        with self.bucket.lock:
            keys = sorted(key for key in self.bucket.objects if key.startswith(query.get("prefix", "")))
            start = int(query.get("continuation-token", 0))
            sizes = {key: self.bucket.objects[key] for key in keys[start : start + _PAGE]}
        items = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size><ETag>{escape(etag(data))}</ETag>"
            "<LastModified>2026-11-21T06:00:00.000Z</LastModified></Contents>"
            for key, data in sizes.items()
        )
        more = f"<NextContinuationToken>{start + _PAGE}</NextContinuationToken>" if start + _PAGE < len(keys) else ""
        truncated = str(bool(more)).lower()
        body = f"<?xml version='1.0'?><ListBucketResult><IsTruncated>{truncated}</IsTruncated>{items}{more}</ListBucketResult>"
        self._answer(200, body.encode(), {"Content-Type": "application/xml"})

    def _error(self, code: int, name: str) -> None:
        self._answer(code, f"<?xml version='1.0'?><Error><Code>{name}</Code><Message>{name}</Message></Error>".encode(), {})

    def _answer(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        if code != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def fake_s3() -> Iterator[tuple[str, Bucket]]:
    """Run the stand-in; its address and what is in it."""
    bucket = Bucket()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BucketHandler", (Handler,), {"bucket": bucket}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", bucket
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
