"""The downloader and the Flowers archive, against a real HTTP server on loopback."""

import io
import socket
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from components.core.digest import sha256_bytes
from components.core.download import Patience, can_reach, download, plain_url
from components.core.errors import DataError, DualError, UsageError
from components.ingest.download import FLOWERS_SHA256, fetch_flowers, flowers_cached

BODY = bytes(range(256)) * 4000
SHA = sha256_bytes(BODY)
QUICK = Patience(attempts=3, first_wait=0.01, timeout=2.0)


@dataclass
class Server:
    """What the server does next, and what it was asked."""

    url: str = ""
    body: bytes = BODY
    etag: str = '"one"'
    ranges: bool = True
    cut_at: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    stall: float = 0.0
    asked: list[dict[str, str]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    """Serves `server.plan.body`; breaks connections and answers errors as planned."""

    def do_GET(self) -> None:
        plan: Server = self.server.plan  # type: ignore[attr-defined]
        plan.asked.append({name.lower(): value for name, value in self.headers.items()})
        time.sleep(plan.stall)
        if plan.statuses and (status := plan.statuses.pop(0)) != 200:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = self._start(plan)
        body = plan.body[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(plan.body) - 1}/{len(plan.body)}")
        if plan.etag:
            self.send_header("ETag", plan.etag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: plan.cut_at.pop(0)] if plan.cut_at else body)

    do_HEAD = do_GET

    def _start(self, plan: Server) -> int:
        same = self.headers.get("If-Range") in (None, plan.etag)
        asked = self.headers.get("Range", "")
        return int(asked.removeprefix("bytes=").rstrip("-")) if plan.ranges and same and asked else 0

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture
def server() -> Iterator[Server]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.plan = plan = Server(url=f"http://127.0.0.1:{http.server_port}/file.bin")  # type: ignore[attr-defined]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield plan
    http.shutdown()
    http.server_close()
    thread.join()


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def test_brings_the_whole_file_and_leaves_nothing_else(server: Server, tmp_path: Path) -> None:
    lines: list[str] = []
    assert download(server.url, tmp_path / "new" / "f.bin", SHA, say=lines.append) == tmp_path / "new" / "f.bin"
    assert (tmp_path / "new" / "f.bin").read_bytes() == BODY
    assert leftovers(tmp_path / "new") == ["f.bin"]
    assert lines == ["f.bin: 1.0 MB of 1.0 MB (100%)"]


def test_a_file_with_the_digest_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    (target := tmp_path / "f.bin").write_bytes(BODY)
    download(server.url, target, SHA)
    assert server.asked == []


def test_a_file_with_another_digest_is_replaced(server: Server, tmp_path: Path) -> None:
    (target := tmp_path / "f.bin").write_bytes(b"old")
    download(server.url, target, SHA, patience=QUICK)
    assert target.read_bytes() == BODY


def test_resumes_after_a_cut_with_the_validator(server: Server, tmp_path: Path) -> None:
    server.cut_at = [300_000]
    download(server.url, tmp_path / "f.bin", SHA, patience=QUICK)
    assert (tmp_path / "f.bin").read_bytes() == BODY
    assert "range" not in server.asked[0]
    assert server.asked[1]["if-range"] == '"one"'
    assert 0 < int(server.asked[1]["range"].removeprefix("bytes=").rstrip("-")) <= 300_000


def test_many_cuts_are_no_failure_while_bytes_arrive(server: Server, tmp_path: Path) -> None:
    server.cut_at = [270_000, 1, 270_000, 1, 270_000]
    download(server.url, tmp_path / "f.bin", SHA, patience=QUICK)
    assert (tmp_path / "f.bin").read_bytes() == BODY


def test_a_later_process_goes_on_where_the_first_was_killed(server: Server, tmp_path: Path) -> None:
    server.cut_at = [300_000]
    with pytest.raises(DualError, match="goes on where it stopped"):
        download(server.url, tmp_path / "f.bin", SHA, patience=Patience(attempts=1, timeout=2))
    have = (tmp_path / "f.bin.part").stat().st_size
    assert 0 < have < len(BODY)
    download(server.url, tmp_path / "f.bin", SHA, patience=QUICK)
    assert server.asked[-1]["range"] == f"bytes={have}-"
    assert leftovers(tmp_path) == ["f.bin"]


def test_a_complete_part_file_needs_no_request(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f.bin.part").write_bytes(BODY)
    download(server.url, tmp_path / "f.bin", SHA)
    assert server.asked == []
    assert (tmp_path / "f.bin").read_bytes() == BODY


def test_a_file_that_changed_meanwhile_is_fetched_from_the_start(server: Server, tmp_path: Path) -> None:
    server.cut_at = [300_000]
    with pytest.raises(DualError):
        download(server.url, tmp_path / "f.bin", patience=Patience(attempts=1, timeout=2))
    server.etag, server.body = '"two"', b"changed" * 1000
    download(server.url, tmp_path / "f.bin", patience=QUICK)
    assert (tmp_path / "f.bin").read_bytes() == server.body


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.ranges, server.cut_at = False, [300_000]
    download(server.url, tmp_path / "f.bin", SHA, patience=QUICK)
    assert (tmp_path / "f.bin").read_bytes() == BODY


def test_without_validator_and_digest_nothing_is_resumed(server: Server, tmp_path: Path) -> None:
    server.etag, server.cut_at = "", [300_000]
    download(server.url, tmp_path / "f.bin", patience=QUICK)
    assert all("range" not in asked for asked in server.asked)
    assert (tmp_path / "f.bin").read_bytes() == BODY


def test_a_stranger_part_file_is_noticed_by_the_digest(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f.bin.part").write_bytes(b"x" * 1000)
    download(server.url, tmp_path / "f.bin", SHA, patience=QUICK)
    assert (tmp_path / "f.bin").read_bytes() == BODY


def test_a_part_file_longer_than_the_file_is_dropped(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f.bin.part").write_bytes(b"x" * (len(BODY) + 1))
    server.statuses = [416, 200]
    download(server.url, tmp_path / "f.bin", SHA, patience=QUICK)
    assert (tmp_path / "f.bin").read_bytes() == BODY


def test_another_content_is_refused_and_not_kept(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"sha256 is {SHA}, expected {'0' * 64}"):
        download(server.url, tmp_path / "f.bin", "0" * 64, patience=QUICK)
    assert leftovers(tmp_path) == []


def test_5xx_is_tried_again_with_growing_pauses(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 500, 200]
    lines: list[str] = []
    download(server.url, tmp_path / "f.bin", SHA, say=lines.append, patience=Patience(attempts=3, first_wait=0.1, timeout=2))
    assert "503" in lines[0]
    assert "in 0.1 s" in lines[0]
    assert "in 0.2 s" in lines[1]


def test_5xx_for_ever_ends(server: Server, tmp_path: Path) -> None:
    server.statuses = [503] * 9
    with pytest.raises(DualError, match="503 Service Unavailable, 3 times in a row"):
        download(server.url, tmp_path / "f.bin", SHA, patience=QUICK)
    assert len(server.asked) == 3


@pytest.mark.parametrize(("status", "advice"), [(404, "Check the address"), (403, "proxy"), (407, "proxy")])
def test_4xx_ends_at_once(server: Server, tmp_path: Path, status: int, advice: str) -> None:
    server.statuses = [status] * 9
    with pytest.raises(DualError, match=rf"{status}.*{advice}") as caught:
        download(server.url, tmp_path / "f.bin", SHA, patience=QUICK)
    assert server.url in str(caught.value)
    assert len(server.asked) == 1


def test_a_silent_server_times_out(server: Server, tmp_path: Path) -> None:
    server.stall = 0.6
    with pytest.raises(DualError, match="ReadTimeout"):
        download(server.url, tmp_path / "f.bin", SHA, patience=Patience(attempts=2, first_wait=0.01, timeout=0.1))


def test_a_refused_connection_ends_at_once(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(DualError, match="can't be reached") as caught:
        download(f"http://127.0.0.1:{port}/f", tmp_path / "f.bin")
    assert time.monotonic() - began < 3
    assert "--data drawn" in str(caught.value)
    assert not can_reach(f"http://127.0.0.1:{port}/f")


def test_a_full_disk_is_said(server: Server, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    (tmp_path / "f.bin.part").symlink_to("/dev/full")
    with pytest.raises(DualError, match=r"No space left.*Make room"):
        download(server.url, tmp_path / "f.bin", SHA, patience=QUICK)


def test_a_target_that_cannot_be_is_said(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DualError, match="can't be written"):
        download(server.url, tmp_path / "file" / "f.bin", SHA, patience=QUICK)


def test_other_schemes_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not an http"):
        download("ftp://host/f", tmp_path / "f.bin")


def test_two_at_once_fetch_it_once(server: Server, tmp_path: Path) -> None:
    server.stall = 0.1
    threads = [threading.Thread(target=download, args=(server.url, tmp_path / "f.bin", SHA)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.asked) == 1


def test_secrets_in_an_address_are_not_printed() -> None:
    assert plain_url("https://user:word@host:1/a/b?token=x#y") == "https://host:1/a/b"


def test_can_reach_says_yes_no_and_answers_in_time(server: Server) -> None:
    assert can_reach(server.url)
    server.statuses = [404]
    assert not can_reach(server.url)
    server.stall = 1.0
    began = time.monotonic()
    assert not can_reach(server.url, seconds=0.2)
    assert time.monotonic() - began < 0.8


def test_a_terminal_gets_a_bar_and_a_pipe_gets_lines(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    download(server.url, tmp_path / "piped", SHA)
    assert capsys.readouterr().err == "piped: 1.0 MB of 1.0 MB (100%)\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    download(server.url, tmp_path / "shown", SHA)
    assert "━" in capsys.readouterr().err


def tar_of(files: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.type = len(content), kind
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


FLOWERS = {"flower_photos/LICENSE.txt": b"CC BY", "flower_photos/daisy/a.jpg": b"1", "flower_photos/roses/b.jpg": b"2"}


def test_flowers_are_unpacked_once_and_the_licence_is_no_class(server: Server, tmp_path: Path) -> None:
    server.body = tar_of(FLOWERS)
    folder = fetch_flowers(tmp_path, url=server.url, sha256=sha256_bytes(server.body))
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*")) == ["daisy", "daisy/a.jpg", "roses", "roses/b.jpg"]
    assert (folder.parent / "LICENSE.txt").read_bytes() == b"CC BY"
    assert leftovers(folder.parent.parent) == [folder.parent.name], "the archive and the staging folder are gone"
    assert fetch_flowers(tmp_path, url=server.url, sha256=sha256_bytes(server.body)) == folder
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("entry", "kind"), [("../../evil/x.jpg", tarfile.REGTYPE), ("/evil/x.jpg", tarfile.REGTYPE), ("p/daisy/l.jpg", tarfile.SYMTYPE)]
)
def test_an_archive_that_points_outside_is_refused(server: Server, tmp_path: Path, entry: str, kind: bytes) -> None:
    server.body = tar_of({entry: b""}, kind)
    with pytest.raises(DataError, match=r"can't be unpacked .*no plain file"):
        fetch_flowers(tmp_path / "cache", url=server.url, sha256=sha256_bytes(server.body))
    assert not (tmp_path / "evil").exists()
    assert not list((tmp_path / "cache").rglob("photos"))


@pytest.mark.parametrize("body", [b"no archive", tar_of(FLOWERS)[:120], tar_of({"only.txt": b"x"})])
def test_a_damaged_archive_is_data_error(server: Server, tmp_path: Path, body: bytes) -> None:
    server.body = body
    with pytest.raises(DataError, match="Delete it and run again"):
        fetch_flowers(tmp_path, url=server.url, sha256=sha256_bytes(body))
    assert not list(tmp_path.rglob("photos"))


def test_flowers_cached_knows_the_folder(tmp_path: Path) -> None:
    assert not flowers_cached(tmp_path)
    (tmp_path / "flowers" / f"flower_photos-{FLOWERS_SHA256[:12]}").mkdir(parents=True)
    assert flowers_cached(tmp_path)
