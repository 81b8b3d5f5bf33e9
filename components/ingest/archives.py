"""Unpacking .zip and .tar archives from anybody: nothing is written outside the folder, and not more than allowed."""

import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO
from zlib import error as ZlibError

from components.core.errors import DataError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_PIECE = 1 << 20
_MAX_FILES = 5_000_000
Member = tuple[str, IO[bytes]]


def unpack(archive: Path, folder: Path, limit: int) -> None:
    """Write the regular files of an archive below `folder`; links and devices are left out.

    Raises `DataError` for a damaged or encrypted archive, a name that leads outside, or more than `limit` bytes in all (counted
    while unpacking: headers lie).
    """
    members = _zip_members if archive.name.lower().endswith(".zip") else _tar_members
    left = limit
    try:
        for number, (name, file) in enumerate(members(archive)):
            if number >= _MAX_FILES:
                raise DataError(f"holds more than {_MAX_FILES:,} files", where=archive.name, fix="Split it")
            left -= _write(file, _inside(folder, name, archive), left, archive)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, ZlibError, RuntimeError, NotImplementedError, OSError) as error:
        # zipfile raises RuntimeError for a missing password; gzip and lzma raise OSError and EOFError for damage.
        if isinstance(error, OSError) and error.errno:
            raise
        raise DataError(f"can't be unpacked ({error})", where=archive.name, fix="Make the archive again, without a password") from error


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16):
                with file.open(info) as member:
                    yield info.filename, member


def _tar_members(archive: Path) -> Iterator[Member]:
    with tarfile.open(archive, "r:*") as file:
        for info in file:
            member = file.extractfile(info) if info.isreg() else None
            if member:
                yield info.name, member


def _inside(folder: Path, name: str, archive: Path) -> Path:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in name or ":" in parts[0]:
        raise DataError(f"holds the name {name!r}, which leads outside", where=archive.name, fix="Don't trust this archive")
    return folder.joinpath(*parts)


def _write(source: IO[bytes], target: Path, limit: int, archive: Path) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with target.open("wb") as file:
        while piece := source.read(_PIECE):
            written += len(piece)
            if written > limit:
                raise DataError("unpacks to more than ingest.max_download_gb", where=archive.name, fix="Raise it if you trust the archive")
            file.write(piece)
    return written
