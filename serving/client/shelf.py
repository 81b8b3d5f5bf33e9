"""What a device keeps: its state in one small file that is replaced whole, and the models by their digests.

    state.json              who it is, the newest manifest it has seen, the model in service and the one before
    models/<sha256>.tflite  written under another name, flushed to the disk, then renamed

One rename of state.json is the swap of the model: a device that loses its power at any moment has the old version or the new one, whole.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from components.core.channel import MobilePointer
from components.core.digest import sha256_file
from components.core.errors import DeviceStorageError

_STATE = "state.json"


class Installed(BaseModel):
    """A model on this device: its release, what an app must know of it, and its layered policy."""

    model_config = ConfigDict(frozen=True)

    release: str
    mobile: MobilePointer
    policy: dict[str, JsonValue]


class DeviceState(BaseModel):
    """The content of state.json."""

    model_config = ConfigDict(populate_by_name=True, frozen=True)

    schema_: Literal["dual.device/v1"] = Field(default="dual.device/v1", alias="schema")
    installation: str
    """A random UUID, made once: its bucket decides about staged percentages. It says nothing of who uses the device."""
    sequence: int = 0
    digest: str = ""
    """Sequence and SHA-256 of the newest manifest that was accepted: an older one is refused from then on."""
    current: Installed | None = None
    previous: Installed | None = None
    refused: dict[str, str] = {}
    """Digest of a model that failed here → why: it is not downloaded again while the manifest stays the same."""


class Shelf:
    """The folder of one app on one device."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`, which is made on the first write."""
        self.folder = folder

    def read(self) -> DeviceState:
        """The state; a new installation if there is none. `DeviceStorageError` if it is damaged."""
        path = self.folder / _STATE
        with _refusals(path):
            if not path.is_file():
                return DeviceState(installation=str(uuid4()))
            try:
                return DeviceState.model_validate_json(path.read_bytes())
            except ValidationError as error:
                fix = "Delete the folder: the device begins anew, with what the app brings along"
                raise DeviceStorageError(f"the state is damaged ({error.errors()[0]['msg']})", where=str(path), fix=fix) from None

    def write(self, state: DeviceState) -> None:
        """Replace the state, whole or not at all."""
        self._put(_STATE, state.model_dump_json(by_alias=True, indent=1).encode())

    def model(self, digest: str) -> Path:
        """Where the model of that digest lies."""
        return self.folder / "models" / f"{digest}.tflite"

    def holds(self, installed: Installed | None) -> bool:
        """Whether a model is there, bit for bit."""
        if installed is None:
            return False
        path = self.model(installed.mobile.sha256)
        with _refusals(path):
            return path.is_file() and path.stat().st_size == installed.mobile.size and sha256_file(path) == installed.mobile.sha256

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """A path for a download, on the same file system; what is left there at the end is removed."""
        path = self.folder / "models" / f".{uuid4().hex}.part"
        with _refusals(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def keep(self, incoming: Path, digest: str) -> None:
        """Make a download the model of that digest."""
        path = self.model(digest)
        with _refusals(path):
            _flush(incoming)
            os.replace(incoming, path)
            _flush(path.parent)

    def clear(self, state: DeviceState) -> None:
        """Remove models that are neither in service nor the one before, and downloads that were cut off."""
        needed = {self.model(each.mobile.sha256) for each in (state.current, state.previous) if each}
        with _refusals(self.folder):
            for path in (self.folder / "models").glob("*"):
                if path not in needed:
                    path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One update of this device at a time, also by several processes."""
        path = self.folder / ".lock"
        with _refusals(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = path.open("w")
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _put(self, name: str, data: bytes) -> None:
        path, temporary = self.folder / name, self.folder / f".{name}.{uuid4().hex}"
        with _refusals(path):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                temporary.write_bytes(data)
                _flush(temporary)
                os.replace(temporary, path)
                _flush(self.folder)
            finally:
                temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        fix = "Free some space, or check the app's permissions; the version in service stays"
        raise DeviceStorageError(f"the device refuses: {error.strerror or error}", where=str(path), fix=fix) from None
