"""A store in a Google Cloud Storage bucket; every contract write carries a generation precondition.

https://cloud.google.com/storage/docs/request-preconditions
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

from components.core.errors import DualError, MissingObjectError, StaleError
from components.core.stores.base import Object, Store, check_prefix, join, too_large
from components.core.stores.headers import cache_control, content_type

_WRITER = "dual-writer"


class GcsStore(Store):
    """Objects below `prefix` of `bucket`; honours STORAGE_EMULATOR_HOST."""

    def __init__(self, bucket: str, prefix: str) -> None:
        """Remember the address; the client connects on first use."""
        self.bucket_name, self.prefix = bucket, prefix
        self.uri = f"gs://{join(bucket, prefix)}"

    def get(self, name: str) -> Object:
        """Download the bytes together with the generation they belong to."""
        with self._asking(name):
            blob = self._blob(name)
            data = blob.download_as_bytes()
            return Object(data, str(blob.generation))

    def exists(self, name: str) -> bool:
        """One metadata request."""
        with self._asking(name):
            return bool(self._blob(name).exists())

    def list(self, prefix: str) -> Iterator[str]:
        """List by prefix (strongly consistent on Cloud Storage)."""
        check_prefix(prefix)
        root = f"{self.prefix}/" if self.prefix else ""
        with self._asking(prefix):
            names = [blob.name.removeprefix(root) for blob in self._client.list_blobs(self.bucket_name, prefix=root + prefix)]
        return iter(sorted(names))

    def put(self, name: str, data: bytes) -> None:
        """Upload without a precondition."""
        with self._asking(name):
            self._blob(name).upload_from_string(data, content_type=content_type(name))

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
        try:
            with self._asking(name):
                self._blob(name).delete()
        except MissingObjectError:
            return

    def copy_file(self, name: str, path: Path, limit: int | None = None) -> None:
        """Ask for the size, then download that generation in pieces."""
        with self._asking(name):
            blob = self._blob(name)
            blob.reload()
            if limit is not None and blob.size > limit:
                raise too_large(f"{self.uri}/{name}", limit)
            blob.download_to_filename(str(path))

    def _upload(self, name: str, data: bytes, generation: int) -> str:
        from google.api_core.exceptions import PreconditionFailed

        writer = uuid4().hex
        with self._asking(name):
            blob = self._blob(name)
            blob.metadata = {_WRITER: writer}
            try:
                blob.upload_from_string(data, content_type=content_type(name), if_generation_match=generation)
            except PreconditionFailed:
                # The client repeats an upload whose answer was lost; the repetition then fails on our own write.
                found = self._bucket.get_blob(blob.name)
                if found is None or (found.metadata or {}).get(_WRITER) != writer:
                    raise
                return str(found.generation)
            return str(blob.generation)

    def _blob(self, name: str) -> Any:
        blob = self._bucket.blob(join(self.prefix, join(name)))
        # What is publicly readable and says nothing is cached for an hour, channels too.
        blob.cache_control = cache_control(name)
        return blob

    @contextmanager
    def _asking(self, name: str) -> Iterator[None]:
        """What the service answers, in our own errors."""
        from google.api_core.exceptions import GoogleAPIError, NotFound, PreconditionFailed
        from google.auth.exceptions import GoogleAuthError
        from requests.exceptions import RequestException

        where = f"{self.uri}/{name}"
        try:
            yield
        except NotFound as error:
            raise MissingObjectError(f"no such object ({_first_line(error)})", where=where, fix="Check the bucket and the name") from None
        except PreconditionFailed:
            raise StaleError("the object changed since it was read", where=where, fix="Read it again and retry") from None
        except GoogleAuthError as error:
            fix = "Log in (gcloud auth application-default login) or use a service account"
            raise DualError(f"no credentials for Cloud Storage ({_first_line(error)})", where=where, fix=fix) from None
        except (GoogleAPIError, RequestException, ConnectionError) as error:
            fix = "Check the bucket, your permissions and the network"
            raise DualError(f"Cloud Storage refuses or can't be reached ({_first_line(error)})", where=where, fix=fix) from None

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


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300].rstrip(".")
