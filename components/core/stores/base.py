"""What a store promises, whatever lies below."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.core.errors import DataError, MissingObjectError


@dataclass(frozen=True)
class Object:
    """An object's bytes and the generation under which they were read (opaque; for `swap`)."""

    data: bytes
    generation: str


class Store(ABC):
    """A flat name space of immutable objects plus a few mutable ones that change by compare-and-swap.

    Names are relative POSIX paths. A reader sees an object whole or not at all. Every write is atomic. Errors: `MissingObjectError`
    for a missing object, `DataError` for a bad name, `StaleError` for a lost race, `UsageError` for a bad address, `DualError` for
    what the service or the operating system refuses.
    """

    uri: str

    @abstractmethod
    def get(self, name: str) -> Object:
        """The object's bytes and generation; `MissingObjectError` if there is none."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether an object of that name is there."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[str]:
        """Names that start with `prefix`, sorted."""

    @abstractmethod
    def put(self, name: str, data: bytes) -> None:
        """Write `data`, replacing what was there. For caches and run records only, never for contracts."""

    @abstractmethod
    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Write `data` if the name is free and return True; return False and leave things alone if it is taken."""

    @abstractmethod
    def swap(self, name: str, data: bytes, generation: str | None) -> str:
        """Replace the object read under `generation` (None: it must be absent); returns the new generation.

        Raises `StaleError` if another generation is there by now.
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove the object; no error if it is gone already."""

    def find(self, name: str) -> Object | None:
        """The object, or None if it is not there."""
        try:
            return self.get(name)
        except MissingObjectError:
            return None

    def put_file(self, name: str, path: Path) -> None:
        """Write a file's content under `name` (replacing)."""
        self.put(name, path.read_bytes())

    def get_file(self, name: str, path: Path) -> None:
        """Write an object's content to `path`, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.part")
        temporary.write_bytes(self.get(name).data)
        temporary.replace(path)

    def copy_file(self, name: str, path: Path, limit: int | None = None) -> None:
        """Write a copy of the object to `path`: never a link, and where the store allows piece by piece rather than through memory.

        Raises `DataError` if the object is longer than `limit` bytes, at the latest when that many are written. A failure may leave a part.
        """
        data = self.get(name).data
        if limit is not None and len(data) > limit:
            raise too_large(f"{self.uri}/{name}", limit)
        path.write_bytes(data)

    def put_tree(self, prefix: str, root: Path) -> None:
        """Write every file below `root` under `prefix/`, in sorted order."""
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            self.put_file(join(prefix, path.relative_to(root).as_posix()), path)

    def get_tree(self, prefix: str, root: Path) -> None:
        """Write every object below `prefix/` to files below `root`."""
        for name in self.list(f"{prefix}/"):
            self.get_file(name, root / name.removeprefix(f"{prefix}/"))


def join(*parts: str) -> str:
    """Join store names and refuse what would leave the store."""
    name = "/".join(part.strip("/") for part in parts if part)
    if any(piece in ("", ".", "..") for piece in name.split("/")) or "\\" in name or "\0" in name:
        raise DataError(f"'{name}' is not a name inside a store", fix="Names are relative paths without '..'")
    return name


def too_large(where: str, limit: int) -> DataError:
    """The error for an object that is longer than whoever reads it allows."""
    fix = "It was changed, or is another object: look with `dual release verify`"
    return DataError(f"has more than the {limit} bytes expected", where=where, fix=fix)


def check_prefix(prefix: str) -> None:
    """Refuse a prefix for `list` that would leave the store; any beginning of a name is fine, also the empty one."""
    if prefix.startswith("/"):
        raise DataError(f"'{prefix}' is not a prefix inside a store", fix="Names are relative paths")
    if prefix:
        join(prefix.removesuffix("/"), "x")
