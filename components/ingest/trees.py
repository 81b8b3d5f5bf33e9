"""Files below an address, listed by relative name and read one by one: a local folder, or a prefix of gs:// or s3://."""

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import islice
from pathlib import Path, PurePosixPath

from components.core.digest import canonical_json
from components.core.errors import DataError, DualError
from components.core.stores import Store
from components.ingest.items import TooLargeError, UnreadableError

_FACTS, _PIECE = 1000, 1 << 16
_IGNORED = {"thumbs.db", "desktop.ini", "__macosx"}


class Tree(ABC):
    """Read-only files below `uri`; hidden and operating-system files are not there."""

    uri: str
    remote = False

    @abstractmethod
    def names(self) -> Iterable[str]:
        """Relative POSIX names of all files, sorted; as often as wanted."""

    @abstractmethod
    def folders(self) -> list[str]:
        """Relative names of all folders, also empty ones where the place knows such a thing; sorted."""

    @abstractmethod
    def unreadable(self) -> list[str]:
        """Folders that could not be listed."""

    @abstractmethod
    def read(self, name: str, limit: int) -> bytes:
        """A file's bytes; raises `UnreadableError`, or `TooLargeError` above `limit` bytes."""

    @abstractmethod
    def fingerprint(self) -> object:
        """JSON value that changes with the files, or None."""

    def listing(self) -> str:
        """Digest of the names in their order."""
        digest = sha256()
        for name in self.names():
            digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
        return digest.hexdigest()


class _Names:
    """Texts in one piece of memory: as objects, a million names would take a hundred megabytes."""

    def __init__(self, names: Iterable[str]) -> None:
        # A zero byte is what no file name can hold.
        self._text = b"".join(name.encode("utf-8", "surrogateescape") + b"\0" for name in names)

    def __iter__(self) -> Iterator[str]:
        start = 0
        while (end := self._text.find(b"\0", start)) >= 0:
            yield self._text[start:end].decode("utf-8", "surrogateescape")
            start = end + 1


class LocalTree(Tree):
    """A folder on this machine, walked once."""

    def __init__(self, root: Path) -> None:
        """Walk `root`; `DataError` if it is no folder or can't be listed."""
        self.root, self.uri = root, str(root)
        self._folders: list[str] = []
        self._unreadable: list[str] = []
        _require_folder(root)
        self._names = _Names(sorted(self._walk()))

    def _walk(self) -> Iterator[str]:
        """Names of files, folder by folder; notes the folders on the way."""
        start = len(os.path.join(self.root, ""))
        for folder, below, files in os.walk(self.root, onerror=self._failed, followlinks=False):
            inside = f"{folder[start:]}/" if len(folder) > start else ""
            below[:] = sorted(name for name in below if not _is_ignored(name))
            self._folders += [inside + name for name in below]
            yield from (inside + name for name in files if not _is_ignored(name))

    def _failed(self, error: OSError) -> None:
        folder = Path(str(error.filename))
        if folder == self.root:
            raise DataError(f"can't be listed ({error.strerror})", where=self.uri, fix="Check its permissions")
        self._unreadable.append(folder.relative_to(self.root).as_posix())

    def names(self) -> Iterable[str]:
        """As walked."""
        return self._names

    def folders(self) -> list[str]:
        """As walked."""
        return sorted(self._folders)

    def unreadable(self) -> list[str]:
        """As walked."""
        return sorted(self._unreadable)

    def read(self, name: str, limit: int) -> bytes:
        """Open, look at the size, then read."""
        return read_local(f"{self.uri}/{name}", limit)

    def fingerprint(self) -> object:
        """Digest of name, size and modification time of every file."""
        digest = sha256()
        names = iter(self._names)
        while some := [[spell(name), *_size_and_time(f"{self.uri}/{name}")] for name in islice(names, _FACTS)]:
            digest.update(canonical_json(some))
        return digest.hexdigest()


class StoreTree(Tree):
    """A prefix of a bucket. Listings carry no digests, so results that depend on it are not cached."""

    remote = True

    def __init__(self, store: Store) -> None:
        """List the store once; `DataError` if that fails or there is nothing."""
        self.store, self.uri = store, store.uri
        try:
            listed = [name for name in store.list("") if not name.endswith("/")]
        except DualError:
            raise
        except Exception as error:
            raise DataError(f"can't be listed ({type(error).__name__}: {error})", where=self.uri, fix="Check address and access") from error
        self._names = sorted(name for name in listed if not any(_is_ignored(part) for part in name.split("/")))
        if not self._names:
            raise DataError("there is nothing", where=self.uri, fix="Check the address")

    def names(self) -> Iterable[str]:
        """As listed."""
        return self._names

    def folders(self) -> list[str]:
        """Every prefix that holds an object."""
        return sorted({str(parent) for name in self._names for parent in PurePosixPath(name).parents if parent.name})

    def unreadable(self) -> list[str]:
        """None: a listing is whole or fails."""
        return []

    def read(self, name: str, limit: int) -> bytes:
        """Download; the size is known only afterwards."""
        try:
            data = self.store.get(name).data
        except Exception as error:
            raise UnreadableError(f"{type(error).__name__}: {error}"[:200]) from error
        if len(data) > limit:
            raise TooLargeError(f"{len(data):,} bytes")
        return data

    def fingerprint(self) -> object:
        """Unknown."""
        return None


def read_local(path: str | Path, limit: int) -> bytes:
    """A regular file's bytes; raises `UnreadableError`, or `TooLargeError` above `limit` bytes, before reading any."""
    try:
        # Without O_NONBLOCK, opening a named pipe in an image folder would wait for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise UnreadableError(getattr(error, "strerror", None) or str(error)) from error
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise UnreadableError("not a regular file")
        if found.st_size > limit:
            raise TooLargeError(f"{found.st_size:,} bytes")
        return _read(handle, found.st_size)
    finally:
        os.close(handle)


def _read(handle: int, size: int) -> bytes:
    """All that is there; mostly `size` bytes, which come in one piece."""
    try:
        data = os.read(handle, size)
        while more := os.read(handle, _PIECE):
            data += more
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from error
    return data


def spell(name: str) -> str:
    """A file name as text: in names that are no UTF-8, the odd bytes are written out in hexadecimal."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in _IGNORED


def _require_folder(root: Path) -> None:
    if not root.exists():
        raise DataError("no such folder", where=str(root), fix="Check the path given as data")
    if not root.is_dir():
        raise DataError("not a folder", where=str(root), fix="Give a folder, a .csv, an archive or .tfrecord files")


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        found = os.lstat(path)
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns
