"""Manifests and what they point to: an image index names manifests, a manifest names its configuration and its layers.

opencontainers/image-spec (manifest.md, image-index.md), and Docker's schema 2 that came before it and differs in names only.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from components.core.digest import sha256_bytes
from components.core.errors import DataError, MissingObjectError, UsageError

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEXES = (OCI_INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = (OCI_MANIFEST, "application/vnd.docker.distribution.manifest.v2+json")
LARGEST_MANIFEST = 4 << 20
"""What registries accept at least, and what nobody should exceed (distribution-spec, "Pushing Manifests")."""


class PassingError(Exception):
    """May be different next time: no connection, a cut connection, a 5xx, too many requests."""


@dataclass(frozen=True)
class Descriptor:
    """A pointer to content: its type, its digest (`sha256:…`), its size in bytes."""

    media_type: str
    digest: str
    size: int
    platform: str = ""
    """`os/architecture[/variant]`, if an index says so."""


@dataclass(frozen=True)
class Manifest:
    """A manifest or an index, byte for byte: its digest is its name."""

    media_type: str
    body: bytes

    @cached_property
    def digest(self) -> str:
        """`sha256:…` of the bytes."""
        return f"sha256:{sha256_bytes(self.body)}"

    @property
    def is_index(self) -> bool:
        """Whether it names manifests instead of layers."""
        return self.media_type in INDEXES

    @cached_property
    def manifests(self) -> list[Descriptor]:
        """The manifests of an index; none for a manifest."""
        return [_descriptor(each) for each in self._document.get("manifests", [])] if self.is_index else []

    @cached_property
    def blobs(self) -> list[Descriptor]:
        """Configuration and layers of a manifest; none for an index. Layers that their licence ties to their own address are left out."""
        if self.is_index:
            return []
        layers = [each for each in self._document.get("layers", []) if not each.get("urls")]
        return [_descriptor(each) for each in (self._document["config"], *layers)]

    def for_platform(self, platform: str) -> Descriptor:
        """The index's manifest for `os/architecture[/variant]`; `UsageError` lists what there is."""
        found = [each for each in self.manifests if each.platform == platform]
        if not found:
            there = ", ".join(sorted({each.platform for each in self.manifests} - {"", "unknown/unknown"}))
            raise UsageError(f"the image has no platform '{platform}'", where="--platform", fix=f"It has {there or 'none that it names'}")
        return found[0]

    @cached_property
    def _document(self) -> dict[str, Any]:
        return json.loads(self.body)


class Images(Protocol):
    """The images of one repository, wherever they are."""

    where: str
    """The repository, as messages name it."""

    def manifest(self, version: str) -> Manifest:
        """The manifest of a tag or digest, its digest verified; `MissingObjectError` if there is none."""
        ...

    def has_manifest(self, digest: str) -> bool:
        """Whether a manifest is there."""
        ...

    def has_blob(self, blob: Descriptor) -> bool:
        """Whether a configuration or layer is there."""
        ...

    def read_blob(self, blob: Descriptor) -> Iterator[bytes]:
        """A configuration or layer in pieces; `verified` checks them."""
        ...

    def write_blob(self, blob: Descriptor, pieces: Iterator[bytes]) -> None:
        """Store a configuration or layer, or nothing if `pieces` fail."""
        ...

    def take_blob(self, blob: Descriptor, source: "Images") -> bool:
        """Take it over from another repository of the same place without moving bytes; False if that can't be done."""
        ...

    def write_manifest(self, manifest: Manifest, tag: str) -> None:
        """Store a manifest whose parts are there, under `tag` (or only under its digest, if empty)."""
        ...


def read_manifest(media_type: str, body: bytes, version: str, where: str) -> Manifest:
    """Check what came for `version`: a known kind, JSON, and the digest if one was asked for. Raises `DataError`."""
    kind = media_type.partition(";")[0].strip() or _own_type(body)
    if kind not in (*INDEXES, *MANIFESTS):
        fix = "Only OCI and Docker schema 2 images can be copied; build the image anew with a current tool"
        raise DataError(f"the manifest of {version} is of type '{kind or 'unknown'}'", where=where, fix=fix)
    manifest = Manifest(kind, body)
    if version.startswith("sha256:") and manifest.digest != version:
        raise DataError(f"asked for manifest {version}, got {manifest.digest}", where=where, fix="Something on the way rewrites images")
    return manifest


def _own_type(body: bytes) -> str:
    try:
        document = json.loads(body)
    except ValueError:
        return ""
    return str(document.get("mediaType", "")) if isinstance(document, dict) else ""


def verified(blob: Descriptor, pieces: Iterator[bytes], where: str) -> Iterator[bytes]:
    """The pieces; `DataError` before the last one is passed on if they are not what the descriptor says."""
    import hashlib

    digest, size, held = hashlib.sha256(), 0, b""
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
        if size > blob.size:
            break
        if held:
            yield held
        held = piece
    if size != blob.size or f"sha256:{digest.hexdigest()}" != blob.digest:
        what = f"{blob.digest} came damaged: {size:,} bytes with digest sha256:{digest.hexdigest()[:12]}…, expected {blob.size:,} bytes"
        raise DataError(what, where=where, fix="Try again; if it stays, the source is damaged")
    if held:
        yield held


def no_such_image(version: str, where: str) -> MissingObjectError:
    """The error for a tag or digest that is not there."""
    return MissingObjectError(f"there is no image {version}", where=where, fix="Check the name and the tag, and whether you may read it")


def _descriptor(value: dict[str, Any]) -> Descriptor:
    platform = value.get("platform") or {}
    parts = [platform.get(key, "") for key in ("os", "architecture", "variant")]
    return Descriptor(value["mediaType"], value["digest"], int(value["size"]), "/".join(part for part in parts if part))
