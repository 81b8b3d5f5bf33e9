"""A folder of signing keys on the publisher's machine: `<key id>.pem` (private, mode 0600) and keyring.json (public).

It lies outside of every store: `$DUAL_KEYS`, or `keys` in the user's configuration folder. What is written here is whole or not there,
and several processes may make the first key at once.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from platformdirs import user_config_path

from components.core.errors import DualError, UsageError
from components.core.keyring import Keyring, PublicKey, public_key, read_keyring
from components.publish_mobile.private_key import PrivateKey, make_key, parse_keys

KEYRING = "keyring.json"
FOLDER_VARIABLE = "DUAL_KEYS"


class KeyFolder:
    """The keys in one folder, which is made on the first write (mode 0700)."""

    def __init__(self, folder: Path | None = None) -> None:
        """Use `folder`; default: $DUAL_KEYS, or the user's configuration folder."""
        self.folder = folder or Path(os.environ.get(FOLDER_VARIABLE) or user_config_path("dual-deploy") / "keys")

    def keyring(self) -> Keyring:
        """The public keys; empty if there is no folder."""
        path = self.folder / KEYRING
        return read_keyring(path) if path.is_file() else Keyring()

    def private_keys(self) -> list[PrivateKey]:
        """Every private key here, also those whose end has come, sorted by id."""
        found = [read_private_key(path) for path in sorted(self.folder.glob("*.pem"))] if self.folder.is_dir() else []
        known = self.keyring()
        return [PrivateKey(known.find(key.public.key_id) or key.public, key.secret) for key in found]

    def new(self, name: str = "", days: int | None = None) -> PublicKey:
        """Make a key that signs from now on, for `days` days or without an end."""
        with self._locked():
            return self._add(name, days)

    def ensure(self, name: str) -> tuple[list[PrivateKey], bool]:
        """The keys that sign now, and whether one was made because there was none at all."""
        keys = self.private_keys()
        if keys:
            return keys, False
        with self._locked():
            # Another process may have been faster.
            made = not self.private_keys()
            if made:
                self._add(name, None)
            return self.private_keys(), made

    def rotate(self, overlap_days: int, name: str = "") -> tuple[PublicKey, list[PublicKey]]:
        """Make a new key, and let every key that has no earlier end sign for `overlap_days` more; the new one, and the old ones.

        Raises `UsageError` if there is no key to rotate.
        """
        with self._locked():
            old = [key.public for key in self.private_keys() if not key.public.is_over(stamp())]
            if not old:
                raise UsageError("there is no key to rotate", where=str(self.folder), fix="Make the first with: dual keys new")
            end = stamp(overlap_days)
            ending = [key.model_copy(update={"not_after": min(key.not_after or end, end)}) for key in old]
            new = self._add(name or old[-1].name, None)
            keyring = self.keyring()
            for key in ending:
                keyring = keyring.with_key(key)
            self._write(KEYRING, keyring.to_json(), 0o644)
            return new, ending

    def _add(self, name: str, days: int | None) -> PublicKey:
        secret = make_key()
        facts = {"created": stamp(), "not_after": stamp(days) if days is not None else "", "name": name}
        public = public_key(secret.public.raw(), **facts)
        # The public half first: a private key that no keyring knows would sign what no app trusts.
        self._write(KEYRING, self.keyring().with_key(public).to_json(), 0o644)
        self._write(f"{public.key_id}.pem", secret.pem(), 0o600)
        return public

    def _write(self, name: str, data: bytes, mode: int) -> None:
        handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=f".{name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.folder / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (self.folder / ".lock").open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
        except OSError as error:
            fix = f"Choose a folder that can be written with {FOLDER_VARIABLE}, or give a key by DUAL_SIGNING_KEY_FILE"
            raise DualError(f"the operating system refuses: {error.strerror or error}", where=str(self.folder), fix=fix) from None


def read_private_key(path: Path) -> PrivateKey:
    """The one key in a file; `UsageError` if it can't be read, holds none or several, or if others on this machine can read it."""
    keys = read_private_keys(path)
    if len(keys) != 1:
        raise UsageError(f"holds {len(keys)} private keys", where=str(path), fix="One file of the key folder holds one key")
    return keys[0]


def read_private_keys(path: Path) -> list[PrivateKey]:
    """Every key in a PEM file; `UsageError` as `read_private_key`."""
    try:
        state, text = path.stat(), path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        what = f"can't be read ({getattr(error, 'strerror', None) or error})"
        raise UsageError(what, where=str(path), fix="Check the path and its permissions") from None
    # As ssh does: a file that somebody else owns (a mounted Secret) is that one's business.
    if state.st_uid == os.getuid() and state.st_mode & 0o077:
        what = f"others on this machine may read this private key (mode {state.st_mode & 0o777:04o})"
        raise UsageError(what, where=str(path), fix=f"Run: chmod 600 {path}")
    return parse_keys(text, str(path))


def stamp(days: int = 0) -> str:
    """UTC in `days` days, ISO 8601 to the second."""
    return (datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="seconds")
