"""The read-only store over http(s), against a real server on the loopback that misbehaves as planned."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from components.core.download import Patience
from components.core.errors import DataError, DualError, MissingObjectError, UsageError
from components.core.stores import http, open_store
from components.core.stores.http import HttpStore

QUICK = Patience(attempts=3, first_wait=0.01, timeout=2.0)
BODY = bytes(range(256)) * 8000


@dataclass
class Plan:
    """What the server holds, does next, and was asked."""

    address: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    cut_at: list[int] = field(default_factory=list)
    """Send this many bytes of the next bodies, then close."""
    redirects: dict[str, str] = field(default_factory=dict)
    etags: list[str] = field(default_factory=lambda: ['"one"'])
    """ETags of the next answers; the last one stays."""
    lie: int = 0
    """Bytes to add to Content-Range."""
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    caching: dict[str, str | None] = field(default_factory=dict)
    """Path → what the last request said to caches."""


class Handler(BaseHTTPRequestHandler):
    """One request of the plan."""

    plan: Plan

    def log_message(self, format: str, *args: object) -> None:
        """Keep the log quiet."""

    def do_GET(self) -> None:
        plan = self.plan
        plan.asked.append((self.command, self.path, self.headers.get("Range")))
        plan.caching[self.path] = self.headers.get("Cache-Control")
        if plan.statuses and (status := plan.statuses.pop(0)) != 200:
            return self._head(status, 0)
        if target := plan.redirects.get(self.path):
            return self._head(302, 0, Location=target)
        found = plan.objects.get(unquote(self.path))
        if found is None:
            return self._head(404, 0)
        return self._send(found)

    do_HEAD = do_GET

    def _send(self, content: bytes) -> None:
        plan = self.plan
        etag = plan.etags.pop(0) if len(plan.etags) > 1 else plan.etags[0]
        same = self.headers.get("If-Range") == etag
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-")) if same else 0
        more = {"Content-Range": f"bytes {start + plan.lie}-{len(content) - 1}/{len(content)}"} if start else {}
        self._head(206 if start else 200, len(content) - start, ETag=etag, **more)
        if self.command == "GET":
            self.wfile.write(content[start:][: plan.cut_at.pop(0)] if plan.cut_at else content[start:])

    def _head(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()


class Server(ThreadingHTTPServer):
    """A server whose clients may hang up."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet about them."""


@pytest.fixture
def plan() -> Iterator[Plan]:
    plan = Plan()
    server = Server(("127.0.0.1", 0), type("PlannedHandler", (Handler,), {"plan": plan}))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    plan.address = f"http://127.0.0.1:{server.server_address[1]}"
    plan.objects["/team/releases/a b/größe.bin"] = BODY
    yield plan
    server.shutdown()
    server.server_close()


@pytest.fixture
def store(plan: Plan) -> HttpStore:
    return HttpStore(f"{plan.address}/team/", QUICK)


NAME = "releases/a b/größe.bin"


def test_objects_are_read_by_their_path(plan: Plan) -> None:
    store = open_store(f"{plan.address}/team")
    assert store.get(NAME).data == BODY
    assert store.get(NAME).generation == '"one"'
    assert store.exists(NAME)
    assert plan.asked[-1][0] == "HEAD"
    assert not store.exists("releases/b")
    assert store.find("releases/b") is None
    with pytest.raises(MissingObjectError, match=r"/team/releases/b: no such object \(404 Not Found\)"):
        store.get("releases/b")


def test_nothing_but_reading_is_possible(store: HttpStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    writes: list[Callable[[], object]] = [
        lambda: store.put("a", b""),
        lambda: store.put_if_absent("a", b""),
        lambda: store.swap("a", b"", None),
        lambda: store.delete("a"),
        lambda: store.put_file("a", tmp_path / "file"),
        lambda: store.list("releases/"),
        lambda: store.get_tree("releases", tmp_path / "tree"),
    ]
    for write in writes:
        with pytest.raises(UsageError, match="can only be read"):
            write()


def test_names_outside_the_store_are_refused(store: HttpStore, plan: Plan) -> None:
    for name in ("../x", "a/../../x", "", "a//b"):
        with pytest.raises(DataError, match="not a name inside a store"):
            store.get(name)
    assert plan.asked == []


def test_a_server_error_is_tried_again(store: HttpStore, plan: Plan, tmp_path: Path) -> None:
    plan.statuses = [500, 503, 200, 429, 200]
    assert store.get(NAME).data == BODY
    store.copy_file(NAME, tmp_path / "copy", limit=len(BODY))
    assert (tmp_path / "copy").read_bytes() == BODY
    assert len(plan.asked) == 5


def test_a_server_that_goes_on_failing_is_one_clear_line(store: HttpStore, plan: Plan) -> None:
    plan.statuses = [500] * 10
    with pytest.raises(DualError, match=r"größe.bin: the server answered 500 Internal Server Error, 3 times in a row. Check"):
        store.get(NAME)
    assert len(plan.asked) == 3


def test_a_refusal_is_not_tried_again(store: HttpStore, plan: Plan) -> None:
    plan.statuses = [403]
    with pytest.raises(DualError, match=r"refuses \(403 Forbidden\)"):
        store.get(NAME)
    assert len(plan.asked) == 1


def test_nobody_there_is_one_clear_line() -> None:
    with pytest.raises(DualError, match=r"can't be reached or broke off .* 3 times in a row"):
        HttpStore("http://127.0.0.1:9/store", QUICK).get("a")


def test_a_truncated_body_is_never_an_object(store: HttpStore, plan: Plan) -> None:
    plan.cut_at = [100, 200]
    assert store.get(NAME).data == BODY
    plan.cut_at = [100, 200, 300]
    with pytest.raises(DualError, match="broke off"):
        store.get(NAME)


def test_a_broken_copy_goes_on_where_it_stopped(store: HttpStore, plan: Plan, tmp_path: Path) -> None:
    plan.cut_at = [300_000, 500_000]
    store.copy_file(NAME, tmp_path / "copy", limit=len(BODY))
    assert (tmp_path / "copy").read_bytes() == BODY
    offsets = [asked[2] for asked in plan.asked]
    assert offsets[0] is None
    assert all(offset is not None for offset in offsets[1:])


@pytest.mark.parametrize("etags", [['"one"', '"two"'], ['W/"one"'], [""]], ids=["changed", "weak", "none"])
def test_a_copy_starts_again_unless_it_is_the_same_object(store: HttpStore, plan: Plan, tmp_path: Path, etags: list[str]) -> None:
    plan.etags, plan.cut_at = etags, [300_000]
    store.copy_file(NAME, tmp_path / "copy", limit=len(BODY))
    assert (tmp_path / "copy").read_bytes() == BODY


def test_another_range_than_the_one_asked_for_is_not_used(store: HttpStore, plan: Plan, tmp_path: Path) -> None:
    plan.lie, plan.cut_at = 7, [300_000]
    store.copy_file(NAME, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == BODY


def test_a_copy_stops_at_its_limit(store: HttpStore, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more than the 1000 bytes expected"):
        store.copy_file(NAME, tmp_path / "copy", limit=1000)
    assert (tmp_path / "copy").stat().st_size <= 1000


def test_what_would_fill_the_memory_is_refused(store: HttpStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_LARGEST_IN_MEMORY", 1000)
    with pytest.raises(DataError, match="more than the 1000 bytes expected"):
        store.get(NAME)


def test_a_redirect_within_the_scheme_is_followed(store: HttpStore, plan: Plan) -> None:
    plan.objects["/mirror/x"] = b"moved"
    plan.redirects["/team/x"] = f"{plan.address}/mirror/x"
    assert store.get("x").data == b"moved"


@pytest.mark.parametrize("target", ["https://127.0.0.1/x", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_a_redirect_to_another_scheme_is_refused(store: HttpStore, plan: Plan, target: str) -> None:
    plan.redirects["/team/x"] = target
    with pytest.raises(DualError, match=r"another scheme|not understood"):
        store.get("x")
    assert len(plan.asked) == 1


def test_redirects_without_an_end_are_one_clear_line(store: HttpStore, plan: Plan) -> None:
    plan.redirects["/team/x"] = "/team/x"
    with pytest.raises(DualError, match="redirects without an end"):
        store.get("x")


def test_no_error_shows_the_password(plan: Plan) -> None:
    store = HttpStore(f"{plan.address.replace('//', '//user:secret@')}/team", QUICK)
    assert store.get(NAME).data == BODY
    plan.statuses = [500] * 3
    with pytest.raises(DualError) as caught:
        store.get(NAME)
    assert "secret" not in str(caught.value)
    assert "secret" not in store.uri
