"""A repository of a registry: pull and push as the distribution specification has them.

opencontainers/distribution-spec, "Pull" and "Push" (blobs in one chunk: POST, PATCH, PUT, which every registry takes at any size).
"""

from collections.abc import Iterator
from urllib.parse import urlencode, urljoin

import httpx

from components.core.errors import DataError, MissingObjectError
from pipelines.mirror.manifest import (
    INDEXES,
    LARGEST_MANIFEST,
    MANIFESTS,
    Descriptor,
    Images,
    Manifest,
    PassingError,
    no_such_image,
    read_manifest,
)
from pipelines.mirror.session import Session

_PIECE = 1 << 20


class RegistryImages(Images):
    """One repository of a registry."""

    def __init__(self, session: Session, repository: str) -> None:
        """Remember both; nothing is asked yet."""
        self.session, self.repository = session, repository
        self.where = f"{session.registry}/{repository}"
        self._pull, self._push = f"repository:{repository}:pull", f"repository:{repository}:pull,push"

    def manifest(self, version: str) -> Manifest:
        """One GET."""
        headers = {"Accept": ", ".join((*INDEXES, *MANIFESTS))}
        try:
            with self.session.stream("GET", self._path(f"manifests/{version}"), self._pull, headers=headers) as answer:
                body = b""
                for piece in answer.iter_raw(_PIECE):
                    body += piece
                    if len(body) > LARGEST_MANIFEST:
                        raise DataError(f"the manifest of {version} is larger than 4 MiB", where=self.where, fix="Check the registry")
        except MissingObjectError:
            raise no_such_image(version, self.where) from None
        return read_manifest(answer.headers.get("content-type", ""), body, version, self.where)

    def has_manifest(self, digest: str) -> bool:
        """One HEAD."""
        return self._is_there(f"manifests/{digest}", {"Accept": ", ".join((*INDEXES, *MANIFESTS))})

    def has_blob(self, blob: Descriptor) -> bool:
        """One HEAD."""
        return self._is_there(f"blobs/{blob.digest}", {})

    def read_blob(self, blob: Descriptor) -> Iterator[bytes]:
        """GET; what breaks off goes on where it stopped."""
        done, failures = 0, 0
        while True:
            try:
                for piece in self._rest(blob, done):
                    done, failures = done + len(piece), 0
                    yield piece
                return
            except PassingError:
                failures += 1
                if failures >= self.session.patience.attempts:
                    raise
                self.session.pause(failures)

    def write_blob(self, blob: Descriptor, pieces: Iterator[bytes]) -> None:
        """An upload of its own: the registry compares the digest before it keeps anything."""
        begun = self.session.ask("POST", self._path("blobs/uploads/"), self._push)
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
        sent = self.session.ask("PATCH", self._next(begun), self._push, headers=headers, content=pieces)
        where = self._next(sent)
        where += ("&" if "?" in where else "?") + urlencode({"digest": blob.digest})
        self.session.ask("PUT", where, self._push)

    def take_blob(self, blob: Descriptor, source: Images) -> bool:
        """A mount, if the source is another repository of the same registry."""
        if not isinstance(source, RegistryImages) or source.session is not self.session or source.repository == self.repository:
            return False
        query = urlencode({"mount": blob.digest, "from": source.repository})
        scope = f"{self._push} {source._pull}"
        answer = self.session.ask("POST", self._path(f"blobs/uploads/?{query}"), scope)
        if answer.status_code == httpx.codes.CREATED:
            return True
        # A registry that does not mount has begun an upload instead, which nobody will finish.
        self.session.ask("DELETE", self._next(answer), self._push, accepted=(404, 405))
        return False

    def write_manifest(self, manifest: Manifest, tag: str) -> None:
        """One PUT; the registry refuses it if a part is missing."""
        path, headers = self._path(f"manifests/{tag or manifest.digest}"), {"Content-Type": manifest.media_type}
        answer = self.session.ask("PUT", path, self._push, headers=headers, content=manifest.body)
        told = answer.headers.get("docker-content-digest", manifest.digest)
        if told != manifest.digest:
            raise DataError(f"stored manifest {manifest.digest} as {told}", where=self.where, fix="Use a registry that rewrites nothing")

    def _path(self, rest: str) -> str:
        return f"/v2/{self.repository}/{rest}"

    def _next(self, answer: httpx.Response) -> str:
        location = answer.headers.get("location", "")
        if not location:
            raise DataError("began an upload and did not say where", where=self.where, fix="This is no registry")
        return urljoin(str(answer.url), location)

    def _is_there(self, path: str, headers: dict[str, str]) -> bool:
        return self.session.ask("HEAD", self._path(path), self._pull, headers=headers, accepted=(404,)).is_success

    def _rest(self, blob: Descriptor, start: int) -> Iterator[bytes]:
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self.session.stream("GET", self._path(f"blobs/{blob.digest}"), self._pull, headers=headers) as answer:
            skip = 0 if answer.status_code == httpx.codes.PARTIAL_CONTENT else start
            # As they come: what waits for a larger piece would be lost where the connection breaks.
            for piece in answer.iter_raw():
                yield piece[skip:]
                skip = max(0, skip - len(piece))
