"""A store in Cloud Storage for Firebase as apps read it: read-only, by download URLs, under the bucket's security rules.

    https://firebasestorage.googleapis.com/v0/b/<bucket>/o/<name, every "/" escaped>?alt=media

A token of Firebase Authentication or App Check, where the rules ask for one, goes along from $DUAL_FIREBASE_TOKEN. The emulator is honoured
(FIREBASE_STORAGE_EMULATOR_HOST), as in Firebase's own SDKs. Publishers write to the same bucket as gs://.
https://firebase.google.com/docs/storage/web/download-files
"""

import os
from urllib.parse import quote

from components.core.download import Patience
from components.core.errors import MissingObjectError
from components.core.stores.base import join
from components.core.stores.http import HttpStore

_HOST = "https://firebasestorage.googleapis.com"
EMULATOR_VARIABLE = "FIREBASE_STORAGE_EMULATOR_HOST"
TOKEN_VARIABLE = "DUAL_FIREBASE_TOKEN"  # noqa: S105 - the name of a variable


class FirebaseStore(HttpStore):
    """Objects below `prefix` of `bucket`, each under its download URL. Failures are as those of `HttpStore`."""

    def __init__(self, bucket: str, prefix: str, patience: Patience | None = None) -> None:
        """Remember the address; the client connects on first use."""
        super().__init__(_host(), patience)
        self._bucket, self._prefix = bucket, prefix
        self.uri = f"firebase://{join(bucket, prefix)}"

    def exists(self, name: str) -> bool:
        """One GET whose body is not read: the service documents no HEAD."""

        def ask() -> bool:
            with self._answer("GET", name):
                return True

        try:
            return self._patiently(name, ask)
        except MissingObjectError:
            return False

    def _address(self, name: str) -> str:
        return download_url(self._bucket, join(self._prefix, join(name)))

    def _extra_headers(self) -> dict[str, str]:
        token = os.environ.get(TOKEN_VARIABLE)
        return {"Authorization": f"Firebase {token}"} if token else {}


def download_url(bucket: str, name: str) -> str:
    """The address under which apps download an object."""
    return f"{_host()}/v0/b/{quote(bucket, safe='')}/o/{quote(name, safe='')}?alt=media"


def _host() -> str:
    emulator = os.environ.get(EMULATOR_VARIABLE)
    return f"http://{emulator.removeprefix('http://')}" if emulator else _HOST
