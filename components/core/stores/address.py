"""From an address to the store that lies there."""

from pathlib import Path
from urllib.parse import urlsplit

from components.core.errors import UsageError
from components.core.stores.base import Store


def open_store(uri: str) -> Store:
    """The store at a folder, `file://`, `gs://bucket/prefix`, `s3://bucket/prefix`, or (read-only) `http(s)://host/path`.

    `firebase://bucket/prefix` is a gs:// store as apps read it, read-only as well. Raises `UsageError` for any other address.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme == "file":
        from components.core.stores.local import LocalStore

        return LocalStore(Path(rest if separator else uri).expanduser().resolve())
    bucket, _, prefix = rest.partition("/")
    if scheme == "gs" and bucket:
        from components.core.stores.gcs import GcsStore

        return GcsStore(bucket, prefix.strip("/"))
    if scheme == "s3" and bucket:
        from components.core.stores.s3 import S3Store

        return S3Store(bucket, prefix.strip("/"))
    if scheme == "firebase" and bucket:
        from components.core.stores.firebase import FirebaseStore

        return FirebaseStore(bucket, prefix.strip("/"))
    if scheme in {"http", "https"} and _is_base(uri):
        from components.core.stores.http import HttpStore

        return HttpStore(uri)
    fix = "Give a folder, gs://bucket/prefix or s3://bucket/prefix (or, to read only, http(s)://host/path)"
    raise UsageError(f"'{uri}' is not a store", where="--store", fix=fix)


def _is_base(address: str) -> bool:
    """Whether names can be put behind the address: it has a host, and neither query nor fragment."""
    parts = urlsplit(address)
    return bool(parts.hostname) and not parts.query and not parts.fragment
