"""A signing key in Google Cloud KMS (algorithm EC_SIGN_ED25519): the private half never leaves the service.

https://cloud.google.com/kms/docs/reference/rest/v1/projects.locations.keyRings.cryptoKeys.cryptoKeyVersions/asymmetricSign
Ed25519 signs the message itself, so the request carries `data` and no digest (at most 64 KiB). Checksums go both ways, as is advised.
"""

import os
from base64 import b64decode, b64encode
from functools import cached_property
from typing import Any

from components.core.errors import DualError, UsageError
from components.core.keyring import PublicKey, public_key

_ENDPOINT = "https://cloudkms.googleapis.com"
ENDPOINT_VARIABLE = "DUAL_KMS_ENDPOINT"
_SCOPE = "https://www.googleapis.com/auth/cloudkms"
_TIMEOUT = 30.0


class GoogleKey:
    """A `Signer`; `name` is projects/…/cryptoKeyVersions/N. Nothing is asked before the first use."""

    def __init__(self, name: str) -> None:
        """Remember the name; `UsageError` if it is no key version."""
        if not name.startswith("projects/") or "/cryptoKeyVersions/" not in name:
            fix = "Write gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/N"
            raise UsageError(f"'{name}' is no key version", where="gcpkms://", fix=fix)
        self._name = name

    @property
    def public(self) -> PublicKey:
        """Its public half, as the service tells it (asked once)."""
        return self._public

    @cached_property
    def _public(self) -> PublicKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        answer = self._ask("GET", f"{self._name}/publicKey")
        if answer.get("algorithm") != "EC_SIGN_ED25519":
            what = f"the key's algorithm is {answer.get('algorithm')}, not EC_SIGN_ED25519"
            raise UsageError(what, where=self._name, fix="Make another key in the service")
        key = load_pem_public_key(answer["pem"].encode())
        assert isinstance(key, Ed25519PublicKey)  # noqa: S101 - the service says so
        return public_key(key.public_bytes_raw(), name=self._name)

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of the Ed25519 signature of `message`; `DualError` if the service refuses or the answer was damaged."""
        body = {"data": b64encode(message).decode(), "dataCrc32c": str(_checksum(message))}
        answer = self._ask("POST", f"{self._name}:asymmetricSign", body)
        signature = b64decode(answer["signature"])
        if not answer.get("verifiedDataCrc32c") or int(answer["signatureCrc32c"]) != _checksum(signature):
            raise DualError("the request or the signature was damaged on its way", where=self._name, fix="Run again")
        return signature

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        from google.auth.exceptions import GoogleAuthError
        from requests.exceptions import RequestException

        fix = "Check the key's name, and the role Cloud KMS CryptoKey Signer/Verifier of this identity"
        try:
            answer = self._session.request(method, f"{_endpoint()}/v1/{path}", json=body, timeout=_TIMEOUT)
        except (GoogleAuthError, RequestException) as error:
            raise DualError(f"the key service can't be asked ({error})", where=self._name, fix=fix) from None
        if answer.status_code != 200:
            raise DualError(f"the key service refuses ({answer.status_code} {answer.reason})", where=self._name, fix=fix)
        return answer.json()

    @cached_property
    def _session(self) -> Any:
        import requests

        if os.environ.get(ENDPOINT_VARIABLE):
            # A stand-in knows no identity; asking for one would reach for the network.
            return requests.Session()
        import google.auth
        from google.auth.transport.requests import AuthorizedSession

        credentials, _ = google.auth.default(scopes=[_SCOPE])
        return AuthorizedSession(credentials)


def _endpoint() -> str:
    return os.environ.get(ENDPOINT_VARIABLE, _ENDPOINT).rstrip("/")


def _checksum(data: bytes) -> int:
    import google_crc32c

    return int(google_crc32c.value(data))
