"""Public keys: who may sign a channel. A keyring is what an app carries; it holds nothing secret."""

from base64 import b64decode, b64encode
from hashlib import sha256
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.core.errors import UsageError

_RAW_BYTES = 32
_MOMENT = r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00)?$"


class PublicKey(BaseModel):
    """One Ed25519 public key (RFC 8032)."""

    model_config = ConfigDict(frozen=True)

    key_id: str = Field(pattern=r"^[0-9a-f]{16}$")
    """First 16 hex digits of the SHA-256 of the 32 raw bytes."""
    algorithm: Literal["ed25519"] = "ed25519"
    public_key: str
    """Base64 (RFC 4648 section 4) of the 32 raw bytes."""
    created: str = Field(default="", pattern=_MOMENT)
    """UTC, ISO 8601."""
    not_after: str = Field(default="", pattern=_MOMENT)
    """UTC, ISO 8601: from then on publishers no longer sign with it; empty: no end. Devices, whose clocks may be wrong, ignore it."""
    name: str = ""

    @model_validator(mode="after")
    def _is_itself(self) -> "PublicKey":
        raw = b64decode(self.public_key, validate=True)
        if len(raw) != _RAW_BYTES:
            raise ValueError(f"public_key has {len(raw)} bytes, an Ed25519 key has {_RAW_BYTES}")
        if key_id(raw) != self.key_id:
            raise ValueError(f"key_id must be {key_id(raw)} for this public_key")
        return self

    def raw(self) -> bytes:
        """The 32 raw bytes."""
        return b64decode(self.public_key)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` is this key's signature of `message`."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw()).verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def is_over(self, now: str) -> bool:
        """Whether its end has come; `now` is UTC, ISO 8601."""
        return bool(self.not_after) and self.not_after <= now


class Keyring(BaseModel):
    """The content of a keyring file."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["dual.keyring/v1"] = Field(default="dual.keyring/v1", alias="schema")
    keys: list[PublicKey] = []

    def find(self, key_id: str) -> PublicKey | None:
        """The key of that id, or None."""
        return next((key for key in self.keys if key.key_id == key_id), None)

    def with_key(self, key: PublicKey) -> "Keyring":
        """The same with this key, which replaces one of the same id."""
        return Keyring(keys=[*(each for each in self.keys if each.key_id != key.key_id), key])

    def to_json(self) -> bytes:
        """The bytes of the file."""
        return self.model_dump_json(by_alias=True, indent=1).encode() + b"\n"


def key_id(raw: bytes) -> str:
    """The id of the key with these 32 raw bytes."""
    return sha256(raw).hexdigest()[:16]


def public_key(raw: bytes, *, created: str = "", not_after: str = "", name: str = "") -> PublicKey:
    """The public key of 32 raw bytes."""
    return PublicKey(key_id=key_id(raw), public_key=b64encode(raw).decode(), created=created, not_after=not_after, name=name)


def read_keyring(path: Path) -> Keyring:
    """The keyring in a file; `UsageError` if it can't be read or is malformed."""
    try:
        return Keyring.model_validate_json(path.read_bytes())
    except OSError as error:
        fix = "Make one with `dual keys list --json`, where the keys are"
        raise UsageError(f"can't be read ({error.strerror})", where=str(path), fix=fix) from None
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        raise UsageError(what, where=str(path), fix="Make one with `dual keys list --json`") from None
