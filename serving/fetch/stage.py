"""From the store into the model folder: one immutable version that is there whole and verified, or not at all."""

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from components.core import candidate
from components.core.digest import sha256_bytes
from components.core.errors import DataError, DualError, UsageError
from components.core.meter import Say
from components.core.release import MANIFEST, Files, Release, parse_release, place_files, release_folder, release_version
from components.core.stores import Store, join, open_store
from serving.fetch.order import Order

Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    """How often to try, and the first pause in seconds; each one is twice the one before."""

    attempts: int = 4
    first_wait: float = 2.0


@dataclass(frozen=True)
class Model:
    """A SavedModel in the store, once its manifest is verified."""

    manifest: str
    folder: str
    version: int
    files: Files


def stage(order: Order, say: Say, patience: Patience, *, beside: bool = False) -> Path:
    """Put the cloud model at `<model_dir>/<version>/` and return that folder; one that is there already is kept.

    With `beside` the folder may hold other versions.

    What may be over at the next try (no network yet, no credentials yet, a service in trouble) is tried again. Raises `DataError` for a
    missing, damaged or other release, `UsageError` for an address that is no store or a model folder that holds another version,
    `DualError` for the rest.
    """
    store, began = open_store(order.store), time.monotonic()
    say(f"{f'release {order.release}' if order.release else f'candidate {order.sha256}'} from {store.uri}")
    model = _patiently(lambda: find_model(store, order), say, patience)
    target, size = order.model_dir / str(model.version), sum(file.size for file in model.files.values())
    say(f"{model.manifest} is whole: version {model.version}, {len(model.files)} files, {size / 1e6:.1f} MB")
    with _disk(order.model_dir), _alone(order.model_dir, target.name, beside=beside):
        if target.is_dir():
            say(f"{target} is there already")
            return target
        _patiently(lambda: place_files(store, model.folder, model.files, target), say, patience)
    say(f"{target} is staged, the sha256 of every file verified, after {time.monotonic() - began:.1f} s")
    return target


def find_model(store: Store, order: Order) -> Model:
    """The model of the release or candidate that is ordered; `DataError` unless its manifest is what the order says."""
    if not order.release:
        files = candidate.read_candidate(store, order.sha256).files
        return Model(candidate.MANIFEST, candidate.cloud_folder(order.sha256), candidate.candidate_version(order.sha256), files)
    release = read_verified(store, order)
    return Model(MANIFEST, release.cloud_folder(), release.version, release.models.cloud.files)


def read_verified(store: Store, order: Order) -> Release:
    """The release of that id, whose content is what the id and the digest in the order say; else `DataError`."""
    name = join(release_folder(order.release), MANIFEST)
    where, found = f"{store.uri}/{name}", store.find(name)
    if found is None:
        fix = "Is the store mounted, or its address (ConfigMap classifier-store, key uri) another one than the rollout's?"
        raise DataError(f"there is no release '{order.release}'", where=store.uri, fix=fix)
    digest = sha256_bytes(found.data)
    if order.sha256 and digest != order.sha256:
        raise _changed(f"sha256 is {digest}, the rollout asked for {order.sha256}", where)
    release = parse_release(found.data, where)
    _require_content(release, order.release, where)
    return release


def _require_content(release: Release, asked: str, where: str) -> None:
    version = release_version(asked)
    facts = [
        ("id", release.id, asked),
        ("id of the content", release.content_id(), asked),
        ("version", release.version, version),
        ("models.cloud.path", release.models.cloud.path, f"cloud/{version}"),
    ]
    for key, found, expected in facts:
        if found != expected:
            raise _changed(f"{key} is {found}, expected {expected}", where)


def _changed(what: str, where: str) -> DataError:
    return DataError(
        what, where=where, fix="It was changed after it was written: look with `dual release verify`, roll out another release"
    )


def _patiently(attempt: Callable[[], Result], say: Say, patience: Patience) -> Result:
    failures = 0
    while True:
        try:
            return attempt()
        except DualError as error:
            failures += 1
            # The branches of the tree are about somebody's input: they stay as they are, however often one asks.
            if type(error) is not DualError or failures >= patience.attempts:
                raise
            pause = patience.first_wait * 2 ** (failures - 1)
            say(f"{error} Trying again in {pause:g} s")
            time.sleep(pause)


@contextmanager
def _alone(model_dir: Path, version: str, *, beside: bool) -> Iterator[None]:
    """The model folder for one fetcher, rid of what a killed one left; `UsageError` if it holds another version, unless it may."""
    model_dir.mkdir(parents=True, exist_ok=True)
    handle = os.open(model_dir, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        for leftover in model_dir.glob(f".{version}.*"):
            shutil.rmtree(leftover)
        # TF Serving would load the highest number, whatever this pod was made for.
        others = sorted(path.name for path in model_dir.iterdir() if path.name.isdigit() and path.name != version)
        if others and not beside:
            fix = "Give every pod an empty folder of its own (emptyDir): it serves one version"
            raise UsageError(f"holds version {', '.join(others)} as well", where=str(model_dir), fix=fix)
        yield
    finally:
        os.close(handle)


@contextmanager
def _disk(model_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        fix = "Raise the volume's sizeLimit and the ephemeral-storage limits" if full else "Mount a folder that this user may write to"
        raise DualError(f"can't be written ({error.strerror})", where=str(error.filename or model_dir), fix=fix) from None
