"""A store in an S3 bucket (AWS, MinIO, SeaweedFS …) through the Rust object_store; conditional puts by ETag.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from components.core.errors import DataError, StaleError
from components.core.stores.base import Object, Store, join


class S3Store(Store):
    """Objects below `prefix` of `bucket`; address and credentials come from the AWS_* environment."""

    def __init__(self, bucket: str, prefix: str) -> None:
        """Remember the address; the client connects on first use."""
        self.bucket_name, self.prefix = bucket, prefix
        self.uri = f"s3://{join(bucket, prefix)}"

    def get(self, name: str) -> Object:
        """Download the bytes together with their ETag."""
        import obstore

        try:
            result = obstore.get(self._client, self._key(name))
        except FileNotFoundError:
            raise DataError("no such object", where=f"{self.uri}/{name}", fix="Check the store's address and the name") from None
        return Object(bytes(result.bytes()), str(result.meta["e_tag"]))

    def exists(self, name: str) -> bool:
        """One HEAD request."""
        import obstore

        try:
            obstore.head(self._client, self._key(name))
        except FileNotFoundError:
            return False
        return True

    def list(self, prefix: str) -> Iterator[str]:
        """List by prefix, sorted."""
        import obstore

        # The service lists whole path segments only: ask for the folder, then compare names.
        folder = join(self.prefix, prefix.rpartition("/")[0]) if self.prefix or "/" in prefix else None
        root = f"{self.prefix}/" if self.prefix else ""
        metas = (meta for page in obstore.list(self._client, prefix=folder) for meta in page)
        names = sorted(str(meta["path"]).removeprefix(root) for meta in metas)
        return iter([name for name in names if name.startswith(prefix)])

    def put(self, name: str, data: bytes) -> None:
        """Upload without a precondition."""
        import obstore

        obstore.put(self._client, self._key(name), data)

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Upload with If-None-Match: *."""
        import obstore
        from obstore.exceptions import AlreadyExistsError as Exists

        try:
            obstore.put(self._client, self._key(name), data, mode="create")
        except Exists:
            return False
        return True

    def swap(self, name: str, data: bytes, generation: str | None) -> str:
        """Upload with If-Match (or If-None-Match: * for a new object)."""
        import obstore
        from obstore.exceptions import AlreadyExistsError as Exists
        from obstore.exceptions import PreconditionError

        mode: Any = "create" if generation is None else {"e_tag": generation, "version": None}
        try:
            return str(obstore.put(self._client, self._key(name), data, mode=mode)["e_tag"])
        except (Exists, PreconditionError, FileNotFoundError):
            raise StaleError("the object changed since it was read", where=f"{self.uri}/{name}", fix="Read it again and retry") from None

    def delete(self, name: str) -> None:
        """Delete; a missing object is fine."""
        import obstore

        try:
            obstore.delete(self._client, self._key(name))
        except FileNotFoundError:
            return

    def _key(self, name: str) -> str:
        return join(self.prefix, name)

    @cached_property
    def _client(self) -> Any:
        import os

        from obstore.store import S3Store as Client

        endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
        plain_http: Any = {"allow_http": True} if endpoint.startswith("http://") else None
        return Client(self.bucket_name, client_options=plain_http)
