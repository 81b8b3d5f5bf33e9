"""Images in files: an OCI image layout as a folder or as one tar, to be carried where no network goes.

opencontainers/image-spec (image-layout.md). Skopeo, Podman, Docker, containerd (`ctr images import`) and kind read it too: each image's
full name is in its entry of index.json, for containerd under a name of its own.
"""

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, cast
from uuid import uuid4

from components.core.errors import DataError, UsageError
from pipelines.mirror.manifest import OCI_INDEX, Descriptor, Images, Manifest, no_such_image, read_manifest

NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"
_MARK = {"imageLayoutVersion": "1.0.0"}
_PIECE = 1 << 20


class Files(Protocol):
    """The files of a layout, by relative name."""

    where: str

    def size(self, name: str) -> int | None:
        """Bytes of a file, None if it is not there."""
        ...

    def read(self, name: str) -> Iterator[bytes]:
        """A file in pieces."""
        ...

    def write(self, name: str, size: int, pieces: Iterator[bytes]) -> None:
        """A new file, whole or not at all."""
        ...

    def close(self, index: bytes | None) -> None:
        """The end; `index` is the content of index.json if it changed."""
        ...


class Folder(Files):
    """A layout in a folder: it may be added to, and an interrupted copy goes on where it was."""

    def __init__(self, root: Path) -> None:
        """Name the folder; it is made when something is written."""
        self.root, self.where = root, str(root)

    def size(self, name: str) -> int | None:
        """The file's own."""
        path = self.root / name
        return path.stat().st_size if path.is_file() else None

    def read(self, name: str) -> Iterator[bytes]:
        """Read the file."""
        with (self.root / name).open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece

    def write(self, name: str, size: int, pieces: Iterator[bytes]) -> None:
        """Write beside it, then rename."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
        try:
            with part.open("wb") as file:
                for piece in pieces:
                    file.write(piece)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def close(self, index: bytes | None) -> None:
        """Write index.json last: what it names is there."""
        if index is not None:
            mark = json.dumps(_MARK).encode()
            self.write("oci-layout", len(mark), iter([mark]))
            self.write("index.json", len(index), iter([index]))


class Archive(Files):
    """A layout in a tar that is there, to be read."""

    def __init__(self, path: Path) -> None:
        """Open it and learn where its files are; `DataError` if it is no tar."""
        self.where = str(path)
        try:
            self._tar = tarfile.open(path)  # noqa: SIM115 - closed by `close`
            self._members = {each.name.removeprefix("./"): each for each in self._tar.getmembers() if each.isfile()}
        except (OSError, tarfile.TarError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(f"can't be read as an archive ({reason})", where=self.where, fix="Make it anew, or copy it again") from None

    def size(self, name: str) -> int | None:
        """As the tar's header says."""
        return self._members[name].size if name in self._members else None

    def read(self, name: str) -> Iterator[bytes]:
        """Read from the middle of the tar."""
        file = self._tar.extractfile(self._members[name])
        assert file is not None  # noqa: S101 - only files are members
        while piece := file.read(_PIECE):
            yield piece

    def write(self, name: str, size: int, pieces: Iterator[bytes]) -> None:
        """Refused."""
        raise UsageError("is read, not written", where=self.where, fix="Choose another file")

    def close(self, index: bytes | None) -> None:
        """Close the file."""
        self._tar.close()


class NewArchive(Files):
    """A layout in a new tar, written in one go and renamed when it is whole. The same images give the same bytes."""

    def __init__(self, path: Path) -> None:
        """Begin the file beside its place."""
        self.where, self._path = str(path), path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._part = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
        self._tar = tarfile.open(self._part, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - closed by `close`
        self._sizes: dict[str, int] = {}
        self._add("oci-layout", json.dumps(_MARK).encode())

    def size(self, name: str) -> int | None:
        """Of what was written so far."""
        return self._sizes.get(name)

    def read(self, name: str) -> Iterator[bytes]:
        """Refused: it is being written."""
        raise UsageError("is written, not read", where=self.where, fix="Read it when it is whole")

    def write(self, name: str, size: int, pieces: Iterator[bytes]) -> None:
        """Append; what failed half-way is written over by the next try."""
        start = self._tar.offset
        try:
            self._tar.addfile(_entry(name, size), cast("Any", _Pieces(pieces)))
        except BaseException:
            cast("Any", self._tar.fileobj).seek(start)
            self._tar.offset = start
            raise
        self._sizes[name] = size

    def close(self, index: bytes | None) -> None:
        """Write index.json and put the file in its place; without one, leave nothing."""
        if index is not None:
            self._add("index.json", index)
        self._tar.close()
        if index is not None:
            os.replace(self._part, self._path)
        self._part.unlink(missing_ok=True)

    def _add(self, name: str, data: bytes) -> None:
        self._tar.addfile(_entry(name, len(data)), io.BytesIO(data))


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry


class _Pieces:
    """What tarfile reads from, a little at a time: pieces as they come."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._held = pieces, io.BytesIO()

    def read(self, size: int) -> bytes:
        taken = self._held.read(size)
        while len(taken) < size and (piece := next(self._pieces, b"")):
            self._held = io.BytesIO(piece)
            taken += self._held.read(size - len(taken))
        return taken


class Layout:
    """The images of one layout; use it in a `with` block, at whose end index.json names what is new."""

    def __init__(self, files: Files) -> None:
        """Read index.json, if there is one."""
        self.files, self._changed = files, False
        raw = b"".join(files.read("index.json")) if files.size("index.json") is not None else b'{"manifests": []}'
        try:
            self._entries: list[dict[str, Any]] = list(json.loads(raw)["manifests"])
        except (ValueError, KeyError, TypeError):
            raise DataError("index.json is not an image index", where=files.where, fix="This is no OCI image layout") from None

    def __enter__(self) -> "Layout":
        """Use it in a `with` block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write the index, except after an error in an archive: half of what was asked for is not a whole."""
        body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self._entries}
        self.files.close(json.dumps(body, indent=1).encode() if self._changed and kind is None else None)

    def names(self) -> list[str]:
        """The full names of its images, in their order."""
        return [name for each in self._entries if (name := _name_of(each))]

    def find(self, name: str) -> Descriptor | None:
        """The image of that full name."""
        found = next((each for each in self._entries if _name_of(each) == name), None)
        return None if found is None else Descriptor(found["mediaType"], found["digest"], int(found["size"]))

    def keep(self, name: str, manifest: Manifest) -> None:
        """Let index.json name a manifest that is there."""
        entry = {"mediaType": manifest.media_type, "digest": manifest.digest, "size": len(manifest.body)}
        self._entries = [each for each in self._entries if _name_of(each) != name]
        self._entries.append({**entry, "annotations": {NAME: name, CONTAINERD_NAME: name}})
        self._changed = True


class LayoutImages(Images):
    """One repository's images in a layout; all share one set of blobs."""

    def __init__(self, layout: Layout, name: str) -> None:
        """`name` is registry and repository, as the images are called outside."""
        self.layout, self.name = layout, name
        self.where = f"{layout.files.where} ({name})"

    def manifest(self, version: str) -> Manifest:
        """Look the tag up in index.json."""
        found = self.layout.find(f"{self.name}:{version}") if not version.startswith("sha256:") else None
        digest = found.digest if found else version
        if not digest.startswith("sha256:") or self.layout.files.size(_path(digest)) is None:
            raise no_such_image(version, self.where)
        body = b"".join(self.layout.files.read(_path(digest)))
        return read_manifest(found.media_type if found else "", body, digest, self.where)

    def has_manifest(self, digest: str) -> bool:
        """Whether its file is there."""
        return self.layout.files.size(_path(digest)) is not None

    def has_blob(self, blob: Descriptor) -> bool:
        """Whether its file is there, in its full size."""
        return self.layout.files.size(_path(blob.digest)) == blob.size

    def read_blob(self, blob: Descriptor) -> Iterator[bytes]:
        """Read its file."""
        if self.layout.files.size(_path(blob.digest)) is None:
            raise DataError(f"lacks {blob.digest}", where=self.where, fix="Make it anew, or copy it again")
        return self.layout.files.read(_path(blob.digest))

    def write_blob(self, blob: Descriptor, pieces: Iterator[bytes]) -> None:
        """Write its file."""
        self.layout.files.write(_path(blob.digest), blob.size, pieces)

    def take_blob(self, blob: Descriptor, source: Images) -> bool:
        """Never needed: all repositories share the blobs."""
        del blob, source
        return False

    def write_manifest(self, manifest: Manifest, tag: str) -> None:
        """Write its file, and its entry if it has a tag."""
        if not self.has_manifest(manifest.digest):
            self.layout.files.write(_path(manifest.digest), len(manifest.body), iter([manifest.body]))
        if tag:
            self.layout.keep(f"{self.name}:{tag}", manifest)


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _name_of(entry: dict[str, Any]) -> str:
    annotations = entry.get("annotations") or {}
    return str(annotations.get(CONTAINERD_NAME) or annotations.get(NAME) or "")
