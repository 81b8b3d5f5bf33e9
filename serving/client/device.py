"""A device that follows a channel: takes what is published to it after every check, and keeps answering with what it has whatever happens.

    device = Device(Path("app-data"), open_store("https://firebasestorage…"), Trust(keyring, model="flowers"))
    try:
        device.update()
    except UpdateError as error:
        log(error)                      # the version in service stays
    device.open().classify(image_bytes)

Order of an update: fetch → signature → channel and model → sequence → percentage → contract and minimum runtime → size and sha256 → tensors
and golden answers → swap. No step looks at the clock. docs/channel-spec.md says the same for apps in other languages.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.core.channel import BlobPointer, Channel, channel_name
from components.core.digest import sha256_file
from components.core.envelope import LARGEST
from components.core.errors import DamagedError, DataError, DeviceStorageError, DualError, MissingObjectError, OfflineError, SelfTestError
from components.core.stores import Store
from serving.client.model import MobileModel
from serving.client.selftest import Load, Runner, check_contract, check_model, load_litert
from serving.client.shelf import DeviceState, Installed, Shelf
from serving.client.trust import Seen, Trust, Trusted, check_channel, check_file

LITERT_RUNTIME = "2.20.0"
"""TFLite's own version in ai-edge-litert, on the safe side: its interpreter can't be asked (ai-edge-litert 2.3.0 holds TFLite 2.22.0)."""
Outcome = Literal["installed", "kept", "nothing"]


@dataclass(frozen=True)
class Update:
    """What an update did."""

    outcome: Outcome
    """installed: another model is in service now; kept: the right one was there; nothing: this device has none, and is to have none yet."""
    release: str
    """The release in service, or empty."""
    sequence: int
    candidate: bool
    """Whether this device is among those that take the newest release."""


class Device:
    """One installation of an app. Several processes may use the same folder."""

    def __init__(
        self,
        folder: Path,
        store: Store,
        trust: Trust,
        *,
        runtime: str = LITERT_RUNTIME,
        tester: bool = False,
        load: Load = load_litert,
    ) -> None:
        """Follow `store`'s channel with the files in `folder`; a `tester` takes every candidate, whatever the percentage."""
        self._shelf, self._store, self._trust = Shelf(folder), store, trust
        self._runtime, self._tester, self._load = runtime, tester, load

    def state(self) -> DeviceState:
        """What the device keeps; `DeviceStorageError` if that is damaged."""
        return self._shelf.read()

    def update(self) -> Update:
        """Take what is published for this device, if it is new. Any `UpdateError` leaves the version in service as it was."""
        with self._shelf.locked():
            state = self._shelf.read()
            trusted = self._look(state)
            state = self._remember(state, trusted)
            manifest = trusted.manifest
            target, candidate = self._choose(manifest, state)
            outcome, state = self._take(target, state)
            return Update(outcome, state.current.release if state.current else "", manifest.sequence, candidate)

    def open(self) -> MobileModel:
        """The model in service, or the one before if its file was damaged meanwhile; `DamagedError` if there is none."""
        state = self._shelf.read()
        for installed in (state.current, state.previous):
            if installed is not None and self._shelf.holds(installed):
                return MobileModel(installed, self._load(self._shelf.model(installed.mobile.sha256)))
        what = "no model was installed yet" if state.current is None else "the model in service is damaged, and so is the one before"
        raise DamagedError(what, where=str(self._shelf.folder), fix="Update when there is a network")

    def go_back(self, reason: str) -> Installed:
        """Put the version before into service: for a model that an app can't bear. It is not taken again before the channel changes.

        Raises `DamagedError` if there is none.
        """
        with self._shelf.locked():
            state = self._shelf.read()
            before, left = state.previous, state.current
            if before is None or left is None or not self._shelf.holds(before):
                raise DamagedError("there is no version before", where=str(self._shelf.folder), fix="Wait for the next one")
            refused = {**state.refused, left.mobile.sha256: reason}
            self._shelf.write(state.model_copy(update={"current": before, "previous": None, "refused": refused}))
            return before

    def _look(self, state: DeviceState) -> Trusted:
        name = channel_name(self._trust.channel)
        where = f"{self._store.uri}/{name}"
        with self._shelf.incoming() as path:
            with _fetching(where):
                try:
                    self._store.copy_file(name, path, limit=LARGEST)
                except MissingObjectError:
                    raise OfflineError("nothing is published there", where=where, fix="Check the address, or try again later") from None
            data = path.read_bytes()
        return check_channel(data, self._trust, Seen(state.sequence, state.digest), where)

    def _remember(self, state: DeviceState, trusted: Trusted) -> DeviceState:
        """From here on nothing older is accepted, whatever becomes of the download."""
        seen = trusted.seen
        if (state.sequence, state.digest) == (seen.sequence, seen.digest):
            return state
        # What failed may be tried again with another manifest: it may say something else of it.
        newer = state.model_copy(update={"sequence": seen.sequence, "digest": seen.digest, "refused": {}})
        self._shelf.write(newer)
        return newer

    def _choose(self, manifest: Channel, state: DeviceState) -> tuple[Installed | None, bool]:
        has = state.current is not None and state.current.release == manifest.release
        if self._tester or manifest.staging.includes(manifest.channel, state.installation, has_candidate=has):
            return Installed(release=manifest.release, mobile=manifest.mobile, policy=manifest.policy), True
        other = manifest.fallback
        return (Installed(release=other.release, mobile=other.mobile, policy=other.policy) if other else None), False

    def _take(self, target: Installed | None, state: DeviceState) -> tuple[Outcome, DeviceState]:
        if target is None:
            return ("kept" if state.current else "nothing"), state
        if target == state.current and self._shelf.holds(target):
            self._shelf.clear(state)
            return "kept", state
        check_contract(target.mobile, self._runtime, f"release {target.release}")
        if reason := state.refused.get(target.mobile.sha256):
            raise SelfTestError(f"was refused before: {reason}", where=target.mobile.blob, fix="Wait for the next publication")
        if not self._shelf.holds(target):
            self._download(target, state)
        return "installed", self._swap(target, state)

    def _download(self, target: Installed, state: DeviceState) -> None:
        mobile = target.mobile
        with self._shelf.incoming() as path, self._shelf.incoming() as test_path:
            self._fetch(mobile, path)
            if mobile.selftest is not None:
                self._fetch(mobile.selftest, test_path)
            try:
                self._check(path, test_path, target)
            except SelfTestError as error:
                self._shelf.write(state.model_copy(update={"refused": {**state.refused, mobile.sha256: error.what}}))
                raise
            self._shelf.keep(path, mobile.sha256)

    def _check(self, path: Path, test_path: Path, target: Installed) -> Runner:
        selftest = test_path.read_bytes() if target.mobile.selftest is not None else None
        return check_model(path, target.mobile, selftest, self._load)

    def _fetch(self, pointer: BlobPointer, path: Path) -> None:
        where = f"{self._store.uri}/{pointer.blob}"
        with _fetching(where):
            try:
                self._store.copy_file(pointer.blob, path, limit=pointer.size)
            except MissingObjectError:
                raise DamagedError("is not there, though the channel names it", where=where, fix="Try again later") from None
            except DataError as error:
                raise DamagedError(error.what, where=where, fix="Try again; if it stays so, tell whoever publishes there") from None
        check_file(path.stat().st_size, sha256_file(path), pointer.size, pointer.sha256, where)

    def _swap(self, target: Installed, state: DeviceState) -> DeviceState:
        same_file = state.current is not None and state.current.mobile.sha256 == target.mobile.sha256
        previous = state.previous if same_file else state.current
        swapped = state.model_copy(update={"current": target, "previous": previous})
        self._shelf.write(swapped)
        self._shelf.clear(swapped)
        return swapped


@contextmanager
def _fetching(where: str) -> Iterator[None]:
    """What a source or the device's disk refuses, as this device's own errors."""
    try:
        yield
    except (OfflineError, DamagedError):
        raise
    except OSError as error:
        fix = "Free some space, or check the app's permissions; the version in service stays"
        raise DeviceStorageError(f"the device refuses: {error.strerror or error}", where=where, fix=fix) from None
    except DataError as error:
        raise DamagedError(error.what, where=where, fix="Try again; if it stays so, tell whoever publishes there") from None
    except DualError as error:
        raise OfflineError(error.what, where=where, fix="Try again when there is a network; the version in service stays") from None
