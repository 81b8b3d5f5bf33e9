"""A store in a Google Cloud Storage bucket; every contract write carries a generation precondition.

https://cloud.google.com/storage/docs/request-preconditions
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from components.core.errors import DataError, StaleError
from components.core.stores.base import Object, Store, join


class GcsStore(Store):
    """Objects below `prefix` of `bucket`; honours STORAGE_EMULATOR_HOST."""

    def __init__(self, bucket: str, prefix: str) -> None:
        """Remember the address; the client connects on first use."""
        self.bucket_name, self.prefix = bucket, prefix
        self.uri = f"gs://{join(bucket, prefix)}"

    def get(self, name: str) -> Object:
        """Download the bytes together with the generation they belong to."""
        from google.api_core.exceptions import NotFound

        blob = self._bucket.blob(self._key(name))
        try:
            data = blob.download_as_bytes()
        except NotFound:
            raise DataError("no such object", where=f"{self.uri}/{name}", fix="Check the store's address and the name") from None
        return Object(data, str(blob.generation))

    def exists(self, name: str) -> bool:
        """One metadata request."""
        return bool(self._bucket.blob(self._key(name)).exists())

    def list(self, prefix: str) -> Iterator[str]:
        """List by prefix (strongly consistent on Cloud Storage)."""
        root = f"{self.prefix}/" if self.prefix else ""
        for blob in self._client.list_blobs(self.bucket_name, prefix=root + prefix):
            yield blob.name.removeprefix(root)

    def put(self, name: str, data: bytes) -> None:
        """Upload without a precondition."""
        self._bucket.blob(self._key(name)).upload_from_string(data, content_type="application/octet-stream")

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Upload with ifGenerationMatch=0."""
        try:
            self._upload(name, data, generation=0)
        except StaleError:
            return False
        return True

    def swap(self, name: str, data: bytes, generation: str | None) -> str:
        """Upload with ifGenerationMatch."""
        return self._upload(name, data, generation=int(generation or 0))

    def delete(self, name: str) -> None:
        """Delete; a missing object is fine."""
        from google.api_core.exceptions import NotFound

        try:
            self._bucket.blob(self._key(name)).delete()
        except NotFound:
            return

    def _upload(self, name: str, data: bytes, generation: int) -> str:
        from google.api_core.exceptions import PreconditionFailed

        blob = self._bucket.blob(self._key(name))
        try:
            blob.upload_from_string(data, content_type="application/octet-stream", if_generation_match=generation)
        except PreconditionFailed:
            raise StaleError("the object changed since it was read", where=f"{self.uri}/{name}", fix="Read it again and retry") from None
        return str(blob.generation)

    def _key(self, name: str) -> str:
        return join(self.prefix, name)

    @cached_property
    def _client(self) -> Any:
        import os

        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        # An emulator knows no identity; asking for one would reach for the network.
        if os.environ.get("STORAGE_EMULATOR_HOST"):
            return storage.Client(project="emulator", credentials=AnonymousCredentials())
        return storage.Client()

    @cached_property
    def _bucket(self) -> Any:
        return self._client.bucket(self.bucket_name)
