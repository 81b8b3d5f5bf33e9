"""A store that an http(s) server offers file by file: read-only, for machines that fetch releases and for mirrors.

Any server of static files will do. Objects are named by their path below the address, so `list` has nothing to ask.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar
from urllib.parse import quote, urlsplit

import httpx

from components.core.digest import sha256_bytes
from components.core.download import Patience, plain_url
from components.core.errors import DualError, MissingObjectError, UsageError
from components.core.stores.base import Object, Store, join, too_large
from components.core.stores.headers import is_immutable

_LARGEST_IN_MEMORY = 256 << 20
_REDIRECTS = 5
Result = TypeVar("Result")


class _PassingError(Exception):
    """May be different next time: no connection, a timeout, a cut connection, a 5xx."""


class HttpStore(Store):
    """Objects below an http(s) address. Passing failures are tried again with growing pauses, and a broken copy goes on where it stopped.

    Redirects are followed within the scheme only: a store that was asked for over TLS is never read without it.
    """

    def __init__(self, address: str, patience: Patience | None = None) -> None:
        """Remember the address (`http(s)://[user:password@]host/path`); the client connects on first use."""
        self._base, self._patience = address.rstrip("/"), patience or Patience()
        self.uri = plain_url(self._base)

    def get(self, name: str) -> Object:
        """Download the bytes; the generation is the server's ETag, or their digest where it sends none."""

        def read() -> Object:
            with self._answer("GET", name) as answer:
                data = b"".join(_pieces(answer, _LARGEST_IN_MEMORY, self._where(name)))
                return Object(data, answer.headers.get("etag") or sha256_bytes(data))

        return self._patiently(name, read)

    def exists(self, name: str) -> bool:
        """One HEAD request."""

        def ask() -> bool:
            with self._answer("HEAD", name):
                return True

        try:
            return self._patiently(name, ask)
        except MissingObjectError:
            return False

    def copy_file(self, name: str, path: Path, limit: int | None = None) -> None:
        """Download in pieces; what a broken connection left is continued, if the server says that it is still the same object."""
        with path.open("wb") as file:
            copy = _Copy(file, limit)
            self._patiently(name, lambda: self._continue(name, copy))

    def list(self, prefix: str) -> Iterator[str]:
        """Refused: HTTP has no listing."""
        self._refuse("list", prefix)

    def put(self, name: str, data: bytes) -> None:
        """Refused: read-only."""
        self._refuse("write", name)

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Refused: read-only."""
        self._refuse("write", name)

    def swap(self, name: str, data: bytes, generation: str | None) -> str:
        """Refused: read-only."""
        self._refuse("write", name)

    def delete(self, name: str) -> None:
        """Refused: read-only."""
        self._refuse("delete", name)

    def _refuse(self, verb: str, name: str) -> NoReturn:
        what = f"can't {verb} '{name}': over http(s) a store can only be read, object by object"
        raise UsageError(what, where=self.uri, fix="Give the store's own address: a folder, gs://bucket/prefix or s3://bucket/prefix")

    def _continue(self, name: str, copy: "_Copy") -> None:
        with self._answer("GET", name, copy.headers()) as answer:
            copy.begin(answer)
            for piece in _pieces(answer, copy.room(), self._where(name)):
                copy.file.write(piece)

    def _patiently(self, name: str, ask: Callable[[], Result]) -> Result:
        failures = 0
        while True:
            try:
                return ask()
            except _PassingError as error:
                failures += 1
                if failures >= self._patience.attempts:
                    fix = "Check the address, the server and the network"
                    raise DualError(f"{error}, {failures} times in a row", where=self._where(name), fix=fix) from None
                time.sleep(self._patience.first_wait * 2 ** (failures - 1))

    @contextmanager
    def _answer(self, method: str, name: str, headers: dict[str, str] | None = None) -> Iterator[httpx.Response]:
        """The server's answer, its body unread; what it or the network refuses, in our own errors."""
        # A copy of unknown age in some cache on the way is as good as a blob, and as bad as an old channel.
        asked = {**self._extra_headers(), **({} if is_immutable(name) else {"Cache-Control": "no-cache"}), **(headers or {})}
        try:
            with self._client.stream(method, self._address(name), headers=asked) as answer:
                self._require_success(answer, name)
                yield answer
        except httpx.TooManyRedirects:
            raise DualError("redirects without an end", where=self._where(name), fix="Give the address that they lead to") from None
        except httpx.TransportError as error:
            # Also a name that does not resolve: a pod may start before its network does.
            raise _PassingError(f"can't be reached or broke off ({_first_line(error)})") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DualError(f"is not understood ({_first_line(error)})", where=self._where(name), fix="Check the address") from None

    def _require_success(self, answer: httpx.Response, name: str) -> None:
        status = f"{answer.status_code} {answer.reason_phrase}".rstrip()
        if answer.is_server_error or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise _PassingError(f"the server answered {status}")
        if answer.status_code in {httpx.codes.NOT_FOUND, httpx.codes.GONE}:
            raise MissingObjectError(f"no such object ({status})", where=self._where(name), fix="Check the store's address and the name")
        if not answer.is_success:
            raise DualError(f"the server refuses ({status})", where=self._where(name), fix="Check the address and who may read there")

    def _address(self, name: str) -> str:
        return f"{self._base}/{quote(join(name))}"

    def _extra_headers(self) -> dict[str, str]:
        """What goes with every request; a store that needs a token says so here."""
        return {}

    def _where(self, name: str) -> str:
        return f"{self.uri}/{name}"

    @cached_property
    def _client(self) -> httpx.Client:
        scheme = urlsplit(self._base).scheme

        def stay(request: httpx.Request) -> None:
            if request.url.scheme != scheme:
                what = f"redirects to another scheme, {request.url.scheme}://{request.url.host}"
                raise UsageError(what, where=self.uri, fix="Give the address that it leads to, if you trust it")

        timeout = httpx.Timeout(self._patience.timeout, connect=min(8.0, self._patience.timeout))
        return httpx.Client(
            headers={"Accept-Encoding": "identity"},
            timeout=timeout,
            follow_redirects=True,
            max_redirects=_REDIRECTS,
            event_hooks={"request": [stay]},
        )


class _Copy:
    """A file that grows over several answers, and what is known of the object it is a copy of."""

    def __init__(self, file: BinaryIO, limit: int | None) -> None:
        self.file, self.limit, self.etag = file, limit, ""

    def headers(self) -> dict[str, str]:
        """Ask for the rest only if the server can tell whether it is the rest of the same object."""
        return {"Range": f"bytes={self.file.tell()}-", "If-Range": self.etag} if self.etag and self.file.tell() else {}

    def begin(self, answer: httpx.Response) -> None:
        """Make the file ready for the answer's body: kept if that continues it, else empty."""
        if answer.status_code == httpx.codes.PARTIAL_CONTENT:
            if answer.headers.get("content-range", "").startswith(f"bytes {self.file.tell()}-"):
                return
            self.restart()
            raise _PassingError("the server sent another range than the one asked for")
        self.restart()
        etag = answer.headers.get("etag", "")
        self.etag = "" if etag.startswith("W/") else etag

    def restart(self) -> None:
        """Forget what is there."""
        self.file.seek(0)
        self.file.truncate()
        self.etag = ""

    def room(self) -> int | None:
        """How many more bytes may come."""
        return None if self.limit is None else self.limit - self.file.tell()


def _pieces(answer: httpx.Response, room: int | None, where: str) -> Iterator[bytes]:
    """The body; `DataError` before more than `room` bytes of it are passed on."""
    done = 0
    for piece in answer.iter_raw():
        done += len(piece)
        if room is not None and done > room:
            raise too_large(where, room)
        yield piece


def _first_line(error: Any) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300].rstrip(".")
