"""The store, by trying: every operation that releases and channels rest on, with a small object that is removed again."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from components.core.errors import DualError, StaleError
from components.core.stores import Store, open_store
from components.core.stores.local import LocalStore
from pipelines.doctor.finding import Finding, failed, ok, skipped
from pipelines.doctor.visit import Visit

PREFIX = "doctor"
_OLD_SECONDS = 3600
_UNSAFE = "Use a store that keeps conditional writes: Cloud Storage, AWS S3, or MinIO, SeaweedFS and Ceph of a version that does"


class _BrokenPromiseError(DualError):
    """The store did something else than it promised."""


def check_store(visit: Visit) -> list[Finding]:
    """Put-if-absent, get, list, compare-and-swap and delete work, and refuse what they must."""
    if not visit.store:
        return [skipped("store", "no store was named", "dual doctor --store URI")]
    if visit.target != "local" and "://" not in visit.store:
        fix = "Give gs://bucket/prefix or s3://bucket/prefix: dual doctor --store URI"
        return [failed("store", f"{visit.store} is a folder of this machine, which pods can't see", fix)]
    store, said = open_store(visit.store), list[str]()
    try:
        with _leaving_no_folders(store):
            for done in _probe(store):
                said.append(done)
    except DualError as error:
        done = f" (worked before that: {', '.join(said)})" if said else ""
        return [failed("store", f"{error.where or store.uri}: {error.what}{done}", error.fix)]
    return [ok("store", f"{store.uri}: {', '.join(said)}")]


def _probe(store: Store) -> Iterator[str]:
    """Try each operation; yields its name when it has worked."""
    name = f"{PREFIX}/{int(time.time())}-{uuid4().hex[:8]}"
    _sweep(store)
    try:
        _expect(store.put_if_absent(name, b"one"), "put-if-absent says that a new name is taken")
        _expect(not store.put_if_absent(name, b"two"), "put-if-absent replaced an object: two runs could overwrite each other's release")
        yield "put-if-absent"
        found = store.get(name)
        _expect(found.data == b"one", "get returned another content than was written")
        yield "get"
        _expect(name in store.list(f"{PREFIX}/"), "list does not show an object that was just written")
        yield "list"
        store.swap(name, b"three", found.generation)
        _expect(_is_stale(store, name, found.generation), "compare-and-swap replaced a changed object: a channel could lose a publication")
        yield "compare-and-swap"
    finally:
        store.delete(name)
    _expect(store.find(name) is None, "delete left the object")
    yield "delete"


def _is_stale(store: Store, name: str, generation: str) -> bool:
    try:
        store.swap(name, b"four", generation)
    except StaleError:
        return True
    return False


def _expect(kept: bool, broken: str) -> None:
    if not kept:
        raise _BrokenPromiseError(broken, fix=_UNSAFE)


def _sweep(store: Store) -> None:
    """Remove what a doctor that was killed left behind long ago; another one may be at work now."""
    for name in list(store.list(f"{PREFIX}/")):
        began = name.removeprefix(f"{PREFIX}/").partition("-")[0]
        if began.isdigit() and time.time() - int(began) > _OLD_SECONDS:
            store.delete(name)


@contextmanager
def _leaving_no_folders(store: Store) -> Iterator[None]:
    """A local store makes folders for its objects: those that were not there before are removed."""
    if not isinstance(store, LocalStore):
        yield
        return
    before = {path for path in _folders(store.root) if path.exists()}
    try:
        yield
    finally:
        _remove_new(store.root, before)


def _remove_new(root: Path, before: set[Path]) -> None:
    for path in _folders(root):
        if path not in before and path.exists():
            with suppress(OSError):
                # The lock file is made with its folder; a folder with anything else in it stays.
                (path / "lock").unlink(missing_ok=True) if path.name == ".tmp" else None
                path.rmdir()


def _folders(root: Path) -> list[Path]:
    """Every folder that a write could make, the innermost first."""
    return [root / PREFIX, root / ".tmp", root, *root.parents]
