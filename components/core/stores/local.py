"""A store in a local folder: temporary file, fsync, then rename or link."""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.core.errors import DataError, StaleError
from components.core.stores.base import Object, Store, join

_TEMPORARY = ".tmp"


class LocalStore(Store):
    """Objects are files below `root`; generations are content digests, and swaps hold one lock file per store."""

    def __init__(self, root: Path) -> None:
        """Use the folder `root`, which is made on the first write."""
        self.root = root
        self.uri = str(root)

    def get(self, name: str) -> Object:
        """Read the file; `DataError` names it if it is missing."""
        path = self._path(name)
        try:
            data = path.read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise DataError("no such object", where=str(path), fix="Check the store's address and the name") from None
        return Object(data, hashlib.sha256(data).hexdigest())

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        return self._path(name).is_file()

    def list(self, prefix: str) -> Iterator[str]:
        """Walk the folder that `prefix` points into."""
        folder = self.root / prefix if prefix.endswith("/") else (self.root / prefix).parent
        files = (p for p in folder.rglob("*") if p.is_file() and _TEMPORARY not in p.relative_to(self.root).parts)
        names = (p.relative_to(self.root).as_posix() for p in files)
        return iter(sorted(name for name in names if name.startswith(prefix)))

    def put(self, name: str, data: bytes) -> None:
        """Write to a temporary file, then rename over the old one."""
        with self._temporary(data) as temporary:
            os.replace(temporary, self._made(name))

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Write to a temporary file, then hard-link it: the link fails if the name is taken."""
        with self._temporary(data) as temporary:
            try:
                os.link(temporary, self._made(name))
            except FileExistsError:
                return False
        return True

    def swap(self, name: str, data: bytes, generation: str | None) -> str:
        """Compare and rename under the store's lock."""
        with self._lock():
            current = self.find(name)
            found = current.generation if current else None
            if found != generation:
                raise StaleError("the object changed since it was read", where=str(self._path(name)), fix="Read it again and retry")
            self.put(name, data)
        return hashlib.sha256(data).hexdigest()

    def delete(self, name: str) -> None:
        """Unlink the file."""
        self._path(name).unlink(missing_ok=True)

    def put_file(self, name: str, path: Path) -> None:
        """Hard-link where the file system allows (files in stores and caches are never edited in place), else copy."""
        with self._reserved() as temporary:
            _link_or_copy(path, temporary)
            os.replace(temporary, self._made(name))

    def get_file(self, name: str, path: Path) -> None:
        """Hard-link or copy the object to `path`."""
        source = self._path(name)
        if not source.is_file():
            raise DataError("no such object", where=str(source), fix="Check the store's address and the name")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.part")
        temporary.unlink(missing_ok=True)
        _link_or_copy(source, temporary)
        temporary.replace(path)

    def _path(self, name: str) -> Path:
        return self.root / join(name)

    def _made(self, name: str) -> Path:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def _reserved(self) -> Iterator[Path]:
        folder = self.root / _TEMPORARY
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder)
        os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    @contextmanager
    def _temporary(self, data: bytes) -> Iterator[Path]:
        with self._reserved() as path:
            with path.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            path.chmod(0o644)
            yield path

    @contextmanager
    def _lock(self) -> Iterator[None]:
        folder = self.root / _TEMPORARY
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _link_or_copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
