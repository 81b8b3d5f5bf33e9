"""The signed envelope around a channel manifest: DSSE, so that a phone verifies exact bytes and needs no canonical JSON.

    {"payloadType": "…", "payload": base64(manifest), "signatures": [{"keyid": "…", "sig": base64(Ed25519 signature)}]}

What is signed is PAE(payloadType, manifest) = "DSSEv1" SP len(type) SP type SP len(manifest) SP manifest, lengths in decimal bytes.
https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md
"""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.core.errors import DataError
from components.core.keyring import Keyring, PublicKey

PAYLOAD_TYPE = "application/vnd.dual-deploy.channel+json"
LARGEST = 1 << 20
"""Bytes; a longer envelope is not read."""


class Signer(Protocol):
    """One private key, wherever it lies: in a file, in the environment, in a key service."""

    @property
    def public(self) -> PublicKey:
        """Its public half."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of the Ed25519 signature of `message`."""
        ...


class Signature(BaseModel):
    """One signature; `keyid` says which key to try."""

    model_config = ConfigDict(frozen=True)

    keyid: str
    sig: str = Field(min_length=1)
    """Base64 (RFC 4648 section 4) of 64 bytes."""


class Envelope(BaseModel):
    """The content of channels/<channel>.json. No signatures: the publisher was told to publish unsigned."""

    model_config = ConfigDict(populate_by_name=True, frozen=True)

    payload_type: Literal["application/vnd.dual-deploy.channel+json"] = Field(default=PAYLOAD_TYPE, alias="payloadType")
    payload: str = Field(min_length=1)
    """Base64 (RFC 4648 section 4) of the manifest's bytes."""
    signatures: list[Signature]

    def body(self) -> bytes:
        """The manifest's exact bytes; ValueError if the payload is not base64."""
        return b64decode(self.payload, validate=True)

    def to_json(self) -> bytes:
        """The bytes of the file."""
        return self.model_dump_json(by_alias=True, indent=1).encode()


def parse_envelope(data: bytes, where: str) -> Envelope:
    """The envelope in `data`; `DataError` if it is none, or its payload is no base64."""
    try:
        envelope = Envelope.model_validate_json(data)
        envelope.body()
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        raise DataError(what, where=where, fix="It is no signed channel manifest (docs/channel-spec.md)") from None
    except ValueError as error:
        raise DataError(f"payload: {error}", where=where, fix="It is no signed channel manifest (docs/channel-spec.md)") from None
    return envelope


def seal(manifest: bytes, signers: Sequence[Signer]) -> Envelope:
    """The envelope of a manifest with one signature of each signer."""
    message = signed_bytes(PAYLOAD_TYPE, manifest)
    signatures = [Signature(keyid=signer.public.key_id, sig=b64encode(signer.sign(message)).decode()) for signer in signers]
    return Envelope(payload=b64encode(manifest).decode(), signatures=signatures)


def signed_bytes(payload_type: str, manifest: bytes) -> bytes:
    """PAE: the bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(manifest), manifest)


def trusted_signatures(envelope: Envelope, keyring: Keyring) -> list[str]:
    """Ids of the keys of `keyring` whose signature verifies; one is enough. Signatures by other keys are passed over."""
    message = signed_bytes(envelope.payload_type, envelope.body())
    return [each.keyid for each in envelope.signatures if (key := keyring.find(each.keyid)) and key.verifies(_raw(each.sig), message)]


def _raw(signature: str) -> bytes:
    try:
        return b64decode(signature, validate=True)
    except ValueError:
        return b""
