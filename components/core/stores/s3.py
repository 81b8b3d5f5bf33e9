"""A store in an S3 bucket (AWS, MinIO, SeaweedFS …) through the Rust object_store; conditional puts by ETag.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from components.core.errors import DataError, DualError, MissingObjectError, StaleError
from components.core.stores.base import Object, Store, check_prefix, join, too_large
from components.core.stores.headers import cache_control, content_type

_ESCAPED = frozenset('#%?*:|"<>^`{}[]~')
"""object_store percent-encodes these in keys, so that other clients would see other names."""

_CHUNK = 1 << 20


class S3Store(Store):
    """Objects below `prefix` of `bucket`; address and credentials come from the AWS_* environment.

    Generations are ETags, which depend on the content: a value that went away and came back counts as unchanged. Contract objects
    hold a sequence, an epoch or a time, so that no two of their values are equal.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        """Remember the address; the client connects on first use."""
        self.bucket_name, self.prefix = bucket, prefix
        self.uri = f"s3://{join(bucket, prefix)}"

    def get(self, name: str) -> Object:
        """Download the bytes together with their ETag."""
        import obstore

        with self._asking(name):
            result = obstore.get(self._client, self._key(name))
            return Object(bytes(result.bytes()), str(result.meta["e_tag"]))

    def exists(self, name: str) -> bool:
        """One HEAD request."""
        import obstore

        try:
            with self._asking(name):
                obstore.head(self._client, self._key(name))
        except MissingObjectError:
            return False
        return True

    def list(self, prefix: str) -> Iterator[str]:
        """List by prefix, sorted."""
        import obstore

        check_prefix(prefix)
        # The service lists whole path segments only: ask for the folder, then compare names.
        folder = join(self.prefix, prefix.rpartition("/")[0]) if self.prefix or "/" in prefix else None
        root = f"{self.prefix}/" if self.prefix else ""
        with self._asking(prefix):
            metas = [meta for page in obstore.list(self._client, prefix=folder) for meta in page]
        names = (str(meta["path"]).removeprefix(root) for meta in metas)
        return iter(sorted(name for name in names if name.startswith(prefix)))

    def put(self, name: str, data: bytes) -> None:
        """Upload without a precondition."""
        import obstore

        with self._asking(name):
            obstore.put(self._client, self._key(name), data, attributes=_attributes(name))

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Upload with If-None-Match: *."""
        try:
            self._upload(name, data, "create")
        except StaleError:
            return False
        return True

    def swap(self, name: str, data: bytes, generation: str | None) -> str:
        """Upload with If-Match (or If-None-Match: * for a new object)."""
        mode: Any = "create" if generation is None else {"e_tag": generation}
        try:
            return self._upload(name, data, mode)
        except MissingObjectError:
            raise self._stale(name) from None

    def delete(self, name: str) -> None:
        """Delete; a missing object is fine."""
        import obstore

        try:
            with self._asking(name):
                obstore.delete(self._client, self._key(name))
        except MissingObjectError:
            return

    def copy_file(self, name: str, path: Path, limit: int | None = None) -> None:
        """Download in pieces; the answer's head says the size."""
        import obstore

        with self._asking(name), path.open("wb") as file:
            result = obstore.get(self._client, self._key(name))
            if limit is not None and result.meta["size"] > limit:
                raise too_large(f"{self.uri}/{name}", limit)
            for piece in result.stream(min_chunk_size=_CHUNK):
                file.write(piece)

    def _upload(self, name: str, data: bytes, mode: Any) -> str:
        import obstore

        with self._asking(name):
            # One request: the parts of a multipart upload carry no precondition.
            attributes = _attributes(name)
            return str(obstore.put(self._client, self._key(name), data, mode=mode, use_multipart=False, attributes=attributes)["e_tag"])

    def _key(self, name: str) -> str:
        key = join(self.prefix, join(name))
        if found := _ESCAPED & set(key):
            raise DataError(f"'{name}' holds {' '.join(sorted(found))}", where=self.uri, fix="Use letters, digits, and - _ . / in names")
        return key

    def _stale(self, name: str) -> StaleError:
        return StaleError("the object changed since it was read", where=f"{self.uri}/{name}", fix="Read it again and retry")

    @contextmanager
    def _asking(self, name: str) -> Iterator[None]:
        """What the service answers, in our own errors."""
        from obstore import exceptions

        where = f"{self.uri}/{name}"
        try:
            yield
        except FileNotFoundError as error:
            fix = "Check the bucket and the name"
            raise MissingObjectError(f"no such object ({_first_line(error)})", where=where, fix=fix) from None
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
            raise self._stale(name) from None
        except exceptions.BaseError as error:
            fix = "Check AWS_ENDPOINT_URL, AWS_REGION, the credentials and the bucket"
            raise DualError(f"the service refuses or can't be reached ({_first_line(error)})", where=where, fix=fix) from None

    @cached_property
    def _client(self) -> Any:
        import os

        from obstore.store import S3Store as Client

        endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
        plain_http: Any = {"allow_http": True} if endpoint.startswith("http://") else None
        return Client(self.bucket_name, client_options=plain_http)


def _attributes(name: str) -> Any:
    return {"Cache-Control": cache_control(name), "Content-Type": content_type(name)}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300].rstrip(".")
