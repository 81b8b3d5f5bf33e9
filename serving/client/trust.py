"""From the bytes of a channel's file to a manifest that this device may follow: every check that needs no file and no clock."""

from dataclasses import dataclass

from components.core.channel import UNSIGNED_V1, Channel, parse_manifest
from components.core.digest import sha256_bytes
from components.core.envelope import LARGEST, Envelope, parse_envelope, trusted_signatures
from components.core.errors import DamagedError, DataError, RollbackError, UnsupportedError, UntrustedError
from components.core.keyring import Keyring

MANIFEST_SCHEMA = "dual.channel/v2"


@dataclass(frozen=True)
class Trust:
    """What a device was built to accept."""

    keyring: Keyring
    channel: str = "stable"
    model: str = ""
    """Name of the served model; empty: any."""
    unsigned: bool = False
    """Accept a channel without a signature: for tests of an app, never for people's devices."""


@dataclass(frozen=True)
class Seen:
    """The newest manifest that this device has accepted."""

    sequence: int = 0
    digest: str = ""
    """SHA-256 of that manifest's bytes."""


@dataclass(frozen=True)
class Trusted:
    """A manifest that passed, and what to remember of it."""

    manifest: Channel
    seen: Seen


def check_channel(data: bytes, trust: Trust, seen: Seen, where: str) -> Trusted:
    """The manifest in a channel's file, if this device may follow it.

    Raises `UntrustedError` (no trusted signature, another channel, another model, or no channel at all), `RollbackError` (older than one
    that was seen, or another of the same sequence), `UnsupportedError` (a format that this client does not know).
    """
    body = _signed_body(data, trust, where)
    manifest = _manifest(body, where)
    if manifest.channel != trust.channel:
        raise UntrustedError(f"is the channel '{manifest.channel}', not '{trust.channel}'", where=where, fix=_PUBLISHER)
    if trust.model and manifest.model != trust.model:
        raise UntrustedError(f"is of the model '{manifest.model}', not '{trust.model}'", where=where, fix=_PUBLISHER)
    found = Seen(manifest.sequence, sha256_bytes(body))
    _check_sequence(found, seen, where)
    return Trusted(manifest, found)


_PUBLISHER = "Check the address; if it is right, tell whoever publishes there"


def _signed_body(data: bytes, trust: Trust, where: str) -> bytes:
    if len(data) > LARGEST:
        raise UntrustedError(f"has {len(data)} bytes, more than a channel ever has", where=where, fix=_PUBLISHER)
    envelope = _envelope(data, trust, where)
    if envelope is None:
        return data
    if not envelope.signatures and trust.unsigned:
        return envelope.body()
    if not trusted_signatures(envelope, trust.keyring):
        ids = ", ".join(each.keyid for each in envelope.signatures) or "nobody"
        known = ", ".join(key.key_id for key in trust.keyring.keys) or "no key at all"
        raise UntrustedError(f"is signed by {ids}, and this device trusts {known}", where=where, fix=_PUBLISHER)
    return envelope.body()


def _envelope(data: bytes, trust: Trust, where: str) -> Envelope | None:
    """None: the unsigned manifest of the first version, where that is accepted."""
    try:
        return parse_envelope(data, where)
    except DataError as error:
        if trust.unsigned and UNSIGNED_V1.encode() in data:
            return None
        raise UntrustedError(f"is no signed channel ({error.what})", where=where, fix=_PUBLISHER) from None


def _manifest(body: bytes, where: str) -> Channel:
    try:
        return parse_manifest(body, where)
    except DataError as error:
        # Signed by a trusted key and yet not understood: its publisher is newer than this client.
        fix = f"Update the app: it knows {MANIFEST_SCHEMA}"
        raise UnsupportedError(f"the manifest is not understood ({error.what})", where=where, fix=fix) from None


def _check_sequence(found: Seen, seen: Seen, where: str) -> None:
    if found.sequence < seen.sequence:
        what = f"has sequence {found.sequence}, and this device has seen {seen.sequence}"
        raise RollbackError(what, where=where, fix="A stale cache, or somebody who offers old manifests: try again later")
    if found.sequence == seen.sequence and seen.digest and found.digest != seen.digest:
        what = f"is another manifest than the one of sequence {seen.sequence} that this device has seen"
        raise RollbackError(what, where=where, fix=_PUBLISHER)


def check_file(data_size: int, digest: str, expected_size: int, expected_digest: str, where: str) -> None:
    """Refuse a file of another size or digest; `DamagedError` says which."""
    if data_size != expected_size:
        what = f"has {data_size} bytes, the manifest says {expected_size}"
        raise DamagedError(what, where=where, fix="Try again; if it stays so, tell whoever publishes there")
    if digest != expected_digest:
        what = f"has sha256 {digest}, the manifest says {expected_digest}"
        raise DamagedError(what, where=where, fix="Try again; if it stays so, tell whoever publishes there")
