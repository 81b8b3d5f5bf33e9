"""Who signs a publication: keys from the environment, a file, a key service, or this user's key folder; or nobody, if the settings say so.

    DUAL_SIGNING_KEY        the PEM text of one or more private keys (a secret in a variable)
    DUAL_SIGNING_KEY_FILE   paths of PEM files (a mounted secret) or gcpkms://… key versions, separated by `:`
    DUAL_KEYRING            a public keyring: whose signatures on the present channel are known here beside those of the keys above

Where none is given, the keys that this user made (`dual keys new`) sign. A store in a local folder needs none of these: a key for local
stores alone is made when it is first needed, so that everything works out of the box and as it will elsewhere. A bucket's first channels
may be published without a key, with a warning; once one was signed, all have to be.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.core.channel import StoredChannel
from components.core.envelope import Envelope, Signer, seal, trusted_signatures
from components.core.errors import DataError, UsageError
from components.core.keyring import Keyring, read_keyring
from components.core.stores import Store
from components.core.stores.local import LocalStore
from components.publish_mobile.history import HistoryEntry, was_signed
from components.publish_mobile.key_folder import KeyFolder, read_private_keys, stamp
from components.publish_mobile.private_key import parse_keys

Mode = Literal["auto", "required", "unsigned"]
KEY_VARIABLE = "DUAL_SIGNING_KEY"
FILE_VARIABLE = "DUAL_SIGNING_KEY_FILE"
KEYRING_VARIABLE = "DUAL_KEYRING"
MODE_VARIABLE = "DUAL_PUBLISH_MOBILE__SIGNING"
_KMS = "gcpkms://"
_UNSIGNED = "devices refuse it unless they were told to accept anything"


_TOLD: ContextVar[tuple[Mode, tuple[str, ...], bool | None] | None] = ContextVar("signing", default=None)


@dataclass(frozen=True)
class Signing:
    """The keys of one publication, and how they were found."""

    signers: tuple[Signer, ...]
    known: Keyring
    """Whose signatures on the present channel are accepted."""
    note: str
    """For the log and the report: which keys, and where they came from."""

    def seal(self, manifest: bytes) -> Envelope:
        """The manifest's envelope with every key's signature."""
        return seal(manifest, self.signers)

    def key_ids(self) -> list[str]:
        """Ids of the keys that sign."""
        return [signer.public.key_id for signer in self.signers]

    def check(self, found: StoredChannel | None, history: list[HistoryEntry], where: str) -> None:
        """Refuse to build on a channel that somebody else put there; `DataError` says why.

        An unsigned channel is built on while none was signed before: that is how an old store is brought up to date.
        """
        if found is None:
            return
        if not found.is_signed():
            if was_signed(history, found.channel):
                fix = "Somebody replaced it: look at the store's access log, then delete the file and publish again"
                raise DataError("the channel was signed before, and is not any more", where=where, fix=fix)
            return
        if not self.signers:
            fix = f"Give the key by {FILE_VARIABLE}: every device would refuse an unsigned channel"
            raise UsageError("the channel is signed, and this publisher has no key", where=where, fix=fix)
        envelope = found.envelope
        if envelope is not None and not trusted_signatures(envelope, self.known):
            ids = ", ".join(each.keyid for each in envelope.signatures)
            fix = f"If they are yours, give their public keyring by {KEYRING_VARIABLE}; else somebody replaced the channel"
            raise DataError(f"the channel is signed by keys that are not known here ({ids})", where=where, fix=fix)


def find_signing(
    store: Store, mode: Mode | None = None, key_files: Sequence[str] = (), *, local: bool | None = None, stays_unsigned: bool = False
) -> Signing:
    """The keys that are given, else the user's, else the one for local stores; nobody in mode `unsigned`.

    `local` says whether a key made for local stores will do (default: the store is a folder); `stays_unsigned` that a change of an
    unsigned channel needs no key. Raises `UsageError` if a key is required and there is none, or all are past their end.
    """
    if (told := _TOLD.get()) is not None and mode is None:
        mode, key_files, local = told
    mode = mode or _mode()
    if mode == "unsigned":
        return Signing((), Keyring(), f"unsigned, as the settings say: {_UNSIGNED}")
    signers, origin = _given(key_files)
    if not signers:
        signers, origin = [*KeyFolder().private_keys()], f"kept in {KeyFolder().folder}"
    if not signers and mode == "auto" and (isinstance(store, LocalStore) if local is None else local):
        signers, origin = _made_for_local_stores()
    if not signers and stays_unsigned:
        return Signing((), Keyring(), f"unsigned, as before: {_UNSIGNED}")
    if not signers and mode == "auto":
        # Hours of training are not thrown away for it: devices are who must not take it, and they don't.
        return Signing(
            (), Keyring(), f"unsigned, because no key was given by {FILE_VARIABLE}: {_UNSIGNED}. `dual publish sign` signs it later"
        )
    if not signers:
        fix = f"Make a key with `dual keys new` and give its file by {FILE_VARIABLE} (or set publish_mobile.signing=unsigned)"
        raise UsageError("there is no key to sign the channel with", where=store.uri, fix=fix)
    return _signing(signers, origin)


@contextmanager
def signing_as(mode: Mode, key_files: Sequence[str], local: bool | None) -> Iterator[None]:
    """Inside, whoever asks for keys without more words gets those of a run's settings: also an undo deep in a rollout."""
    token = _TOLD.set((mode, tuple(key_files), local))
    try:
        yield
    finally:
        _TOLD.reset(token)


def _mode() -> Mode:
    mode = os.environ.get(MODE_VARIABLE, "auto")
    if mode not in ("auto", "required", "unsigned"):
        raise UsageError(f"'{mode}' is not auto, required or unsigned", where=MODE_VARIABLE, fix="Correct the variable")
    return mode


def _given(key_files: Sequence[str]) -> tuple[list[Signer], str]:
    signers: list[Signer] = []
    if text := os.environ.get(KEY_VARIABLE):
        signers += parse_keys(text, f"the variable {KEY_VARIABLE}")
    places = [*key_files, *_places(os.environ.get(FILE_VARIABLE, ""))]
    for place in places:
        signers += _from_service(place) if place.startswith(_KMS) else read_private_keys(Path(place).expanduser())
    return signers, "given to the publisher"


def _places(text: str) -> list[str]:
    # The separator of paths is in the scheme of a key service too.
    marked = text.replace(_KMS, "gcpkms\0")
    return [place.replace("gcpkms\0", _KMS) for place in marked.split(os.pathsep) if place]


def _from_service(place: str) -> list[Signer]:
    from components.publish_mobile.key_service import GoogleKey

    return [GoogleKey(place.removeprefix(_KMS))]


def _made_for_local_stores() -> tuple[list[Signer], str]:
    folder = local_keys()
    keys, made = folder.ensure("made for local stores")
    return list(keys), f"{'made now and kept' if made else 'kept'} in {folder.folder}"


def local_keys() -> KeyFolder:
    """The keys that are made by themselves, and that sign nothing but stores in local folders."""
    return KeyFolder(KeyFolder().folder / "local")


def own_keyring() -> Keyring:
    """The public halves of all keys that this user has: what programs on this machine trust if they are told nothing else."""
    path = os.environ.get(KEYRING_VARIABLE)
    keyring = read_keyring(Path(path)) if path else KeyFolder().keyring()
    for key in local_keys().keyring().keys:
        keyring = keyring if keyring.find(key.key_id) else keyring.with_key(key)
    return keyring


def _signing(signers: Sequence[Signer], origin: str) -> Signing:
    known = _known(signers)
    current = tuple(s for s in signers if not (known.find(s.public.key_id) or s.public).is_over(stamp()))
    if not current:
        ends = ", ".join(f"{s.public.key_id} ended {(known.find(s.public.key_id) or s.public).not_after}" for s in signers)
        raise UsageError(f"every signing key is past its end ({ends})", where="keys", fix="Make a new one with: dual keys rotate")
    ids = ", ".join(signer.public.key_id for signer in current)
    return Signing(current, known, f"signed with {ids}, {origin}")


def _known(signers: Sequence[Signer]) -> Keyring:
    keyring = own_keyring()
    for signer in signers:
        if keyring.find(signer.public.key_id) is None:
            keyring = keyring.with_key(signer.public)
    return keyring
