"""Bytes and files from http(s)://, gs:// and s3://: size-limited, retried, checked by digest."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from components.core.digest import sha256_file
from components.core.errors import DataError
from components.core.stores import open_store
from components.ingest.items import TooLargeError, UnreadableError
from components.ingest.settings import IngestSettings

WEB = ("http://", "https://")
BUCKET = ("gs://", "s3://")
_TRIES = 4
_PIECE = 1 << 20
Say = Callable[[str], None]


def is_remote(address: str) -> bool:
    """Whether an address is a URL or in a bucket."""
    return address.startswith(WEB + BUCKET)


def file_name(address: str) -> str:
    """The last part of an address' path, without a URL's query."""
    path = urlsplit(address).path if address.startswith(WEB) else address
    return path.rstrip("/").rpartition("/")[2]


def fetch_file(address: str, folder: Path, settings: IngestSettings, say: Say) -> Path:
    """Download an address to `folder`, or find it here if it is a local path; the digest is checked if `settings.sha256` is set.

    Raises `DataError` if it can't be had, is too large, or is something else than expected.
    """
    if not is_remote(address):
        path = Path(address.removeprefix("file://")).expanduser()
        if not path.is_file():
            raise DataError("no such file", where=str(path), fix="Check the path given as data")
    else:
        path = folder / (file_name(address) or "download")
        say(f"downloading {address}")
        _download(address, path, int(settings.max_download_gb * 1e9))
    if settings.sha256 and (found := sha256_file(path)) != settings.sha256.lower():
        raise DataError(f"sha256 is {found}, ingest.sha256 says {settings.sha256}", where=address, fix="Correct one of them")
    return path


def _download(address: str, path: Path, limit: int) -> None:
    try:
        if address.startswith(BUCKET):
            folder, _, name = address.rpartition("/")
            open_store(folder).get_file(name, path)
        else:
            _stream(address, path, limit)
    except (TooLargeError, UnreadableError) as error:
        raise DataError(f"can't be downloaded ({error})", where=address, fix="Check the address, or ingest.max_download_gb") from None


def _stream(url: str, path: Path, limit: int) -> None:
    with Web() as web, path.open("wb") as file:
        for attempt in range(_TRIES):
            try:
                file.seek(0)
                file.truncate()
                for piece in web.pieces(url, limit):
                    file.write(piece)
                return
            except _Transient as error:
                _wait(attempt, error)


class _Transient(Exception):
    """Worth another try."""


def _wait(attempt: int, error: _Transient) -> None:
    if attempt == _TRIES - 1:
        raise UnreadableError(str(error)) from error
    time.sleep(0.2 * 4**attempt)


class Web:
    """Reads URLs; several threads may share it. Connects on first use, because importing httpx takes long."""

    def __init__(self) -> None:
        """Nothing is opened yet."""
        self._client: Any = None
        self._lock = Lock()

    def __enter__(self) -> "Web":
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()

    def read(self, url: str, limit: int) -> bytes:
        """The body at a URL; raises `UnreadableError` after some tries, or `TooLargeError` as soon as `limit` bytes are passed."""
        for attempt in range(_TRIES):
            try:
                return b"".join(self.pieces(url, limit))
            except _Transient as error:
                _wait(attempt, error)
        raise UnreadableError(url)

    def pieces(self, url: str, limit: int) -> Iterator[bytes]:
        """One attempt at the body at a URL, piece by piece."""
        import httpx

        received = 0
        try:
            with self._connected().stream("GET", url) as response:
                _require_ok(response.status_code)
                for piece in response.iter_bytes(_PIECE):
                    received += len(piece)
                    if received > limit:
                        raise TooLargeError(f"more than {limit:,} bytes")
                    yield piece
        except httpx.InvalidURL as error:
            raise UnreadableError(str(error)) from error
        except httpx.HTTPError as error:
            raise _Transient(f"{type(error).__name__}: {error}") from error

    def _connected(self) -> Any:
        import httpx

        with self._lock:
            if self._client is None:
                self._client = httpx.Client(follow_redirects=True, timeout=30)
        return self._client


def _require_ok(status: int) -> None:
    if status in (408, 429) or status >= 500:
        raise _Transient(f"HTTP status {status}")
    if status != 200:
        raise UnreadableError(f"HTTP status {status}")


def bucket_reader(address: str, limit: int) -> Callable[[], bytes]:
    """A function that reads one object, given as gs://bucket/name or s3://bucket/name."""
    folder, _, name = address.rpartition("/")
    return partial(_read_object, folder, name, limit)


def _read_object(folder: str, name: str, limit: int) -> bytes:
    try:
        data = open_store(folder).get(name).data
    except Exception as error:  # The clients raise errors of many libraries; here they all mean one missing picture.
        raise UnreadableError(f"{type(error).__name__}: {error}"[:200]) from error
    if len(data) > limit:
        raise TooLargeError(f"{len(data):,} bytes")
    return data
