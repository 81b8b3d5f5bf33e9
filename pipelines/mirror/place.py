"""From what a person writes (`registry.example.com/team`, `oci:FOLDER`, `oci-archive:FILE.tar`) to where images are read and written."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from components.core.download import Patience
from components.core.errors import UsageError
from pipelines.mirror.layout import Archive, Folder, Layout, LayoutImages, NewArchive
from pipelines.mirror.manifest import Images
from pipelines.mirror.reference import Reference, parse_reference
from pipelines.mirror.registry import RegistryImages
from pipelines.mirror.session import Session

FOLDER, ARCHIVE = "oci:", "oci-archive:"


@dataclass
class Registries:
    """One session for each registry; those in `plain` speak HTTP without TLS."""

    plain: Iterable[str] = ()
    patience: Patience = field(default_factory=lambda: Patience(timeout=60.0))
    _sessions: dict[str, Session] = field(default_factory=dict)

    def images(self, reference: Reference) -> Images:
        """The repository of an image."""
        registry = reference.registry
        if registry not in self._sessions:
            self._sessions[registry] = Session(registry, plain=registry in set(self.plain), patience=self.patience)
        return RegistryImages(self._sessions[registry], reference.repository)


def open_source(address: str, stack: ExitStack) -> Layout:
    """The layout at `oci:FOLDER` or `oci-archive:FILE`, to read; `UsageError` if there is none."""
    kind, path = _split(address, "--from")
    if kind == FOLDER and not (path / "index.json").is_file():
        raise UsageError("holds no index.json", where=address, fix="Give the folder that dual images mirror --to oci:FOLDER wrote")
    return stack.enter_context(Layout(Folder(path) if kind == FOLDER else Archive(path)))


class Target:
    """Where images are copied to, and what they are called there."""

    def __init__(self, address: str, registries: Registries, stack: ExitStack) -> None:
        """Open a layout, or take `registry/prefix` for what it is."""
        self._registries, self._layout, self._prefix = registries, None, address.rstrip("/")
        if address.startswith((FOLDER, ARCHIVE)):
            kind, path = _split(address, "--to")
            self._layout = stack.enter_context(Layout(Folder(path) if kind == FOLDER else NewArchive(path)))
        elif "/" not in self._prefix and "." not in self._prefix and ":" not in self._prefix:
            fix = "Write registry.example.com/team, oci:FOLDER or oci-archive:FILE.tar"
            raise UsageError("is neither a registry nor an archive", where=f"--to {address}", fix=fix)

    def place(self, name: str, source: Reference) -> tuple[Images, Reference]:
        """Where the image `source` goes, under the repository `name` (ours), or its own without the registry."""
        if self._layout is not None:
            return LayoutImages(self._layout, source.name), Reference(source.registry, source.repository, source.tag)
        repository = name or source.repository
        there = parse_reference(f"{self._prefix}/{repository}{f':{source.tag}' if source.tag else ''}")
        image = Reference(there.registry, there.repository, source.tag)
        return self._registries.images(image), image


def _split(address: str, option: str) -> tuple[str, Path]:
    kind = next((kind for kind in (ARCHIVE, FOLDER) if address.startswith(kind)), "")
    if not kind or address == kind:
        raise UsageError("is not an OCI layout", where=f"{option} {address}", fix="Write oci:FOLDER or oci-archive:FILE.tar")
    return kind, Path(address.removeprefix(kind)).expanduser()
