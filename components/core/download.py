"""Files from http(s) servers: checked, resumed where they broke off, and never half there.

A download grows in `<target>.part` and is renamed when it is whole. Beside it, `<target>.part.json` keeps the server's
validator, so that a continued file is known to be the same one (RFC 9110, sections 13.1.5 and 14.2: If-Range and Range).
"""

import errno
import fcntl
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from components.core.digest import sha256_file
from components.core.errors import DataError, DualError, UsageError
from components.core.meter import Say, meter, tell

_CHUNK = 1 << 18
_UNBROKEN = (httpx.TimeoutException, httpx.ReadError, httpx.RemoteProtocolError, httpx.WriteError, httpx.CloseError)


@dataclass(frozen=True)
class Patience:
    """How often and how long to try; seconds."""

    attempts: int = 4
    first_wait: float = 1.0
    timeout: float = 20.0


class _PassingError(Exception):
    """May be different next time: a timeout, a cut connection, a 5xx."""


def download(url: str, target: Path, sha256: str | None = None, *, say: Say | None = None, patience: Patience | None = None) -> Path:
    """Bring the file at `url` to `target` and return `target`; one that is there already (with this digest, if given) is kept.

    An interrupted download goes on where it stopped if the server allows and the file is still the same. Timeouts, cut
    connections and 5xx are tried again with growing pauses, anything else is not. `say` takes lines of progress; without it a
    terminal shows a bar. Processes that want the same target wait for each other.

    Raises `UsageError` for an address that isn't http(s), `DataError` for another content than `sha256`, `DualError` for a
    server that can't be reached or refuses, and for a disk that is full or closed.
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise UsageError("is not an http(s) address", where=plain_url(url), fix="Write it as https://host/path")
    job = _Job(url, target, sha256, say, patience or Patience())
    with _disk(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(target):
            if not job.is_there():
                job.run()
    return target


def can_reach(url: str, seconds: float = 2.5) -> bool:
    """Whether the server of `url` offers it, asked without downloading; False after `seconds` at the latest."""
    answers: list[bool] = []
    # A resolver may hang for much longer than any of the client's own limits.
    thread = threading.Thread(target=lambda: answers.append(_offers(url, seconds)), daemon=True)
    thread.start()
    thread.join(seconds)
    return answers == [True]


def plain_url(url: str) -> str:
    """The address without user, password, query and fragment, which may hold secrets."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


@dataclass
class _Job:
    """One download; the `.part` file is its only memory."""

    url: str
    target: Path
    sha256: str | None
    say: Say | None
    patience: Patience

    @property
    def part(self) -> Path:
        return self.target.with_name(f"{self.target.name}.part")

    @property
    def notes(self) -> Path:
        return self.target.with_name(f"{self.target.name}.part.json")

    def is_there(self) -> bool:
        return self.target.is_file() and self.sha256 in (None, sha256_file(self.target))

    def run(self) -> None:
        resumed = self.size() > 0
        if not (self.sha256 and resumed and sha256_file(self.part) == self.sha256):
            self.fetch()
        if not self.matches() and resumed:
            self.tell("what was resumed does not fit together; starting again")
            self.discard()
            self.fetch()
        if not self.matches():
            found = sha256_file(self.part)
            self.discard()
            fix = "Try again; if the digest stays the same, the file at this address has changed"
            raise DataError(f"sha256 is {found}, expected {self.sha256}", where=plain_url(self.url), fix=fix)
        self.part.replace(self.target)
        self.notes.unlink(missing_ok=True)

    def fetch(self) -> None:
        failures = 0
        while True:
            before = self.size()
            try:
                return self.transfer()
            except _PassingError as error:
                failures = 1 if self.size() > before else failures + 1
                self.pause(failures, str(error))

    def pause(self, failures: int, reason: str) -> None:
        if failures >= self.patience.attempts:
            fix = "Try again later: the download goes on where it stopped"
            raise DualError(f"{reason}, {failures} times in a row", where=plain_url(self.url), fix=fix)
        wait = self.patience.first_wait * 2 ** (failures - 1)
        self.tell(f"{plain_url(self.url)}: {reason}; trying again in {wait:.1f} s")
        time.sleep(wait)

    def transfer(self) -> None:
        """One request: from the start, or from where the part file ends."""
        limits = httpx.Timeout(self.patience.timeout, connect=min(8.0, self.patience.timeout))
        with _network(self.url), httpx.stream("GET", self.url, headers=self.headers(), timeout=limits, follow_redirects=True) as answer:
            self.begin(answer)
            done = self.size()
            length = answer.headers.get("content-length")
            total = done + int(length) if length else None
            with meter(self.target.name, total, self.say) as update, self.part.open("ab") as file:
                for chunk in answer.iter_raw(_CHUNK):
                    file.write(chunk)
                    update(done := done + len(chunk))

    def headers(self) -> dict[str, str]:
        """Ask for the rest only if a stranger's bytes would be noticed: by the server's validator, or by the digest at the end."""
        headers = {"Accept-Encoding": "identity"}
        validator = self.validator()
        if self.size() and (validator or self.sha256):
            headers["Range"] = f"bytes={self.size()}-"
            headers |= {"If-Range": validator} if validator else {}
        return headers

    def begin(self, answer: httpx.Response) -> None:
        """Look at the status line; leaves the part file ready to be appended to."""
        if answer.status_code == httpx.codes.PARTIAL_CONTENT:
            if answer.headers.get("content-range", "").startswith(f"bytes {self.size()}-"):
                return
            self.discard()
            raise _PassingError("the server sent another range than the one asked for")
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and self.size():
            self.discard()
            raise _PassingError("the file is shorter than what is here")
        _require_success(answer, self.url)
        self.part.open("wb").close()
        etag = answer.headers.get("etag", "")
        validator = etag if etag and not etag.startswith("W/") else answer.headers.get("last-modified", "")
        self.notes.write_text(json.dumps({"url": self.url, "validator": validator}))

    def validator(self) -> str:
        try:
            notes = json.loads(self.notes.read_text())
        except (OSError, ValueError):
            return ""
        return notes["validator"] if notes.get("url") == self.url else ""

    def matches(self) -> bool:
        return self.sha256 is None or sha256_file(self.part) == self.sha256

    def size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)

    def tell(self, text: str) -> None:
        (self.say or tell)(text)


def _require_success(answer: httpx.Response, url: str) -> None:
    status = f"the server answered {answer.status_code} {answer.reason_phrase}".rstrip()
    if answer.is_server_error or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
        raise _PassingError(status)
    if answer.is_success:
        return
    refused = answer.status_code in {401, 403, 407}
    fix = "A proxy or the server wants credentials: check HTTPS_PROXY and access rights" if refused else "Check the address"
    raise DualError(status, where=plain_url(url), fix=fix)


@contextmanager
def _network(url: str) -> Iterator[None]:
    """The client's errors → `_PassingError` or `DualError`."""
    try:
        yield
    except _UNBROKEN as error:
        raise _PassingError(f"the connection broke ({type(error).__name__})") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        fix = "Check the network and HTTPS_PROXY; `--data drawn` or a folder of your own needs no network"
        raise DualError(f"can't be reached ({error})", where=plain_url(url), fix=fix) from error


@contextmanager
def _disk(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        fix = "Make room: the download goes on where it stopped" if full else "Choose a folder that can be written to"
        raise DualError(f"can't be written ({error.strerror})", where=str(target), fix=fix) from error


@contextmanager
def _one_at_a_time(target: Path) -> Iterator[None]:
    with target.with_name(f".{target.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _offers(url: str, seconds: float) -> bool:
    try:
        answer = httpx.head(url, timeout=seconds, follow_redirects=True)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError):
        return False
    return answer.is_success or answer.status_code == httpx.codes.METHOD_NOT_ALLOWED
