"""An Ed25519 private key in memory: signs, is written as PKCS #8 PEM, and never shows itself."""

import re
from dataclasses import dataclass
from typing import Any

from components.core.errors import UsageError
from components.core.keyring import PublicKey, public_key

_BLOCK = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL)


@dataclass(frozen=True, repr=False)
class PrivateKey:
    """A `Signer` whose key is in this process."""

    public: PublicKey
    secret: Any

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of the Ed25519 signature of `message`."""
        return self.secret.sign(message)

    def pem(self) -> bytes:
        """PKCS #8 PEM, not encrypted: for a file of mode 0600 only."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        return self.secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def __repr__(self) -> str:
        """The public half only: a key that is printed by accident is lost."""
        return f"PrivateKey({self.public.key_id})"


def make_key() -> PrivateKey:
    """A new random key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return _wrap(Ed25519PrivateKey.generate())


def parse_keys(text: str, where: str) -> list[PrivateKey]:
    """Every key in PEM text, in its order; `UsageError` says where one is wrong, and never what is in it."""
    blocks = _BLOCK.findall(text)
    if not blocks:
        fix = "Make one with `dual keys new`, and give the content of its .pem file"
        raise UsageError("holds no private key in PEM", where=where, fix=fix)
    return [_parse(block, where) for block in blocks]


def _parse(block: str, where: str) -> PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    fix = "Make one with: dual keys new"
    try:
        secret = load_pem_private_key(block.encode(), password=None)
    except TypeError:
        raise UsageError("the private key is encrypted", where=where, fix="Give it decrypted, from your secret store") from None
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError("holds a damaged private key", where=where, fix=fix) from None
    if not isinstance(secret, Ed25519PrivateKey):
        raise UsageError("the private key is not Ed25519", where=where, fix=fix)
    return _wrap(secret)


def _wrap(secret: Any) -> PrivateKey:
    return PrivateKey(public_key(secret.public_key().public_bytes_raw()), secret)
