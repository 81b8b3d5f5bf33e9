"""Copies images digest for digest: only what is missing moves, and what moves is verified."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from components.core.download import Patience
from components.core.errors import DualError
from components.core.meter import Say, meter
from pipelines.mirror.manifest import Descriptor, Images, Manifest, PassingError, verified
from pipelines.mirror.reference import Reference

Result = TypeVar("Result")


@dataclass(kw_only=True)
class Copied:
    """What copying one image took."""

    image: Reference
    """Where it is now, pinned."""
    source: Reference
    size: int = 0
    """Bytes of its configurations and layers, those of every platform together."""
    moved: int = 0
    """Bytes that had to move."""


@dataclass
class Copier:
    """Copies images, one after the other."""

    say: Say
    platform: str = ""
    """`os/architecture` to copy only that one of an image for several: its digest is then that manifest's own."""
    patience: Patience = field(default_factory=Patience)
    _placed: dict[str, Images] = field(default_factory=dict)
    """Digest of a blob → the last repository that has it for sure: the next one may take it from there."""

    def copy(self, source: Images, wanted: Reference, target: Images, image: Reference) -> Copied:
        """Copy what `wanted` names to `image`, under its tag (one made of the digest if it has none), and return what it took.

        Raises `MissingObjectError` if there is no such image, `DataError` if it is damaged, `DualError` if a registry fails for good.
        """
        manifest = self._patiently(lambda: source.manifest(wanted.version))
        if self.platform and manifest.is_index:
            chosen = manifest.for_platform(self.platform)
            manifest = self._patiently(lambda: source.manifest(chosen.digest))
        done = Copied(image=image.with_digest(manifest.digest), source=wanted)
        # Registries may collect what has no tag.
        tag = image.tag or f"sha256-{manifest.digest[7:19]}"
        self._copy(source, manifest, target, tag, done)
        moved = f"{done.moved / 1e6:,.1f} of {done.size / 1e6:,.1f} MB moved" if done.moved else "all of it was there"
        self.say(f"{wanted} -> {done.image}: {moved}")
        return done

    def _copy(self, source: Images, manifest: Manifest, target: Images, tag: str, done: Copied) -> None:
        for child in manifest.manifests:
            self._copy(source, self._patiently(lambda digest=child.digest: source.manifest(digest)), target, "", done)
        for blob in manifest.blobs:
            done.size += blob.size
            done.moved += self._patiently(lambda blob=blob: self._move(source, blob, target))
        self._patiently(lambda: target.write_manifest(manifest, tag))

    def _move(self, source: Images, blob: Descriptor, target: Images) -> int:
        near = self._placed.get(blob.digest, source)
        if target.has_blob(blob) or target.take_blob(blob, near):
            self._placed[blob.digest] = target
            return 0
        pieces = verified(blob, source.read_blob(blob), source.where)
        with meter(f"{source.where} {blob.digest[7:19]}", blob.size, self.say) as update:
            target.write_blob(blob, _told(pieces, update))
        self._placed[blob.digest] = target
        return blob.size

    def _patiently(self, act: Callable[[], Result]) -> Result:
        failures = 0
        while True:
            try:
                return act()
            except PassingError as error:
                failures += 1
                if failures >= self.patience.attempts:
                    fix = "Try again later: what is there already is not copied again"
                    raise DualError(f"{error}, {failures} times in a row", fix=fix) from None
                time.sleep(self.patience.first_wait * 2 ** (failures - 1))


def _told(pieces: Iterator[bytes], update: Callable[[int], None]) -> Iterator[bytes]:
    done = 0
    for piece in pieces:
        done += len(piece)
        update(done)
        yield piece
