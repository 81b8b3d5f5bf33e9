"""A store in a local folder: temporary file, fsync, then rename or link."""

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from components.core.digest import sha256_bytes
from components.core.errors import DataError, DualError, MissingObjectError, StaleError
from components.core.stores.base import Object, Store, check_prefix, join, too_large

_TEMPORARY = ".tmp"
_LOCK = "lock"
_LEFTOVER_SECONDS = 24 * 3600


class LocalStore(Store):
    """Objects are files below `root`; generations are content digests, and swaps hold one lock file per store.

    A killed writer leaves at most a file in `.tmp`, which nobody reads and which a later writer removes after a day.
    """

    def __init__(self, root: Path) -> None:
        """Use the folder `root`, which is made on the first write."""
        self.root = root
        self.uri = str(root)
        self._swept = False

    def get(self, name: str) -> Object:
        """Read the file; `MissingObjectError` names it if it is missing."""
        path = self._path(name)
        try:
            data = path.read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise _missing(path) from None
        except OSError as error:
            raise _failure(path, error) from None
        return Object(data, sha256_bytes(data))

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        return self._path(name).is_file()

    def list(self, prefix: str) -> Iterator[str]:
        """Walk the folder that `prefix` points into."""
        check_prefix(prefix)
        names = []
        for folder, folders, files in os.walk(self.root / prefix.rpartition("/")[0]):
            if Path(folder) == self.root:
                folders[:] = [each for each in folders if each != _TEMPORARY]
            names += [(Path(folder) / file).relative_to(self.root).as_posix() for file in files]
        return iter(sorted(name for name in names if name.startswith(prefix)))

    def put(self, name: str, data: bytes) -> None:
        """Write to a temporary file, then rename over the old one."""
        with self._writing(name) as path, self._temporary(data) as temporary:
            os.replace(temporary, path)
            _settle(path.parent)

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Write to a temporary file, then hard-link it: the link fails if the name is taken."""
        with self._writing(name) as path, self._temporary(data) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            _settle(path.parent)
        return True

    def swap(self, name: str, data: bytes, generation: str | None) -> str:
        """Compare and rename under the store's lock."""
        with self._lock():
            current = self.find(name)
            found = current.generation if current else None
            # A link for a new object: put_if_absent takes no lock, and the first of both must win.
            if found != generation or (generation is None and not self.put_if_absent(name, data)):
                raise StaleError("the object changed since it was read", where=str(self._path(name)), fix="Read it again and retry")
            if generation is not None:
                self.put(name, data)
        return sha256_bytes(data)

    def delete(self, name: str) -> None:
        """Unlink the file."""
        path = self._path(name)
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()

    def put_file(self, name: str, path: Path) -> None:
        """Hard-link where the file system allows (files in stores and caches are never edited in place), else copy."""
        with self._writing(name) as target, self._reserved() as temporary:
            _link_or_copy(path, temporary)
            os.replace(temporary, target)

    def get_file(self, name: str, path: Path) -> None:
        """Hard-link or copy the object to `path`."""
        source = self._path(name)
        if not source.is_file():
            raise _missing(source)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.part")
        _link_or_copy(source, temporary)
        temporary.replace(path)

    def copy_file(self, name: str, path: Path, limit: int | None = None) -> None:
        """Copy the bytes, by the kernel where it can."""
        source = self._path(name)
        if not source.is_file():
            raise _missing(source)
        if limit is not None and source.stat().st_size > limit:
            raise too_large(str(source), limit)
        shutil.copyfile(source, path)

    def _path(self, name: str) -> Path:
        if join(name).startswith(f"{_TEMPORARY}/"):
            raise DataError(f"'{name}' lies in the folder of unfinished writes", where=self.uri, fix="Choose another name")
        return self.root / join(name)

    @contextmanager
    def _writing(self, name: str) -> Iterator[Path]:
        """The object's path, its folder made; what the operating system refuses comes out as a `DualError`."""
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            yield path
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            what = "the name is below an object, or objects are below it: a folder can't hold both"
            raise DataError(what, where=str(path), fix="Choose another name") from None
        except OSError as error:
            raise _failure(path, error) from None

    @contextmanager
    def _reserved(self) -> Iterator[Path]:
        folder = self._temporary_folder()
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
        try:
            file = (self._temporary_folder() / _LOCK).open("w")
        except OSError as error:
            raise _failure(self.root, error) from None
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _temporary_folder(self) -> Path:
        folder = self.root / _TEMPORARY
        folder.mkdir(parents=True, exist_ok=True)
        if not self._swept:
            self._swept = True
            _sweep(folder)
        return folder


def _sweep(folder: Path) -> None:
    # Age is the only sign that a writer is dead; a living one takes seconds.
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            if path.name != _LOCK and time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
                path.unlink()


def _settle(folder: Path) -> None:
    """Make a rename or link in `folder` survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _missing(path: Path) -> MissingObjectError:
    return MissingObjectError("no such object", where=str(path), fix="Check the store's address and the name")


def _failure(path: Path, error: OSError) -> DualError:
    return DualError(
        f"the operating system refuses: {error.strerror or error}", where=str(path), fix="Check the folder's permissions and free space"
    )


def _link_or_copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
