"""A release's mobile half as devices download it: content-addressed files, and the record that names them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from components.core.channel import BlobPointer, MobilePointer, mobile_contract
from components.core.digest import sha256_bytes
from components.core.errors import AlreadyExistsError, DataError
from components.core.release import MOBILE_FILE, Release
from components.core.stores import Store, join
from components.publish_mobile.runtime import minimum_runtime
from components.publish_mobile.selftest import make_selftest

_FIRST_SCHEMA = b'"dual.mobile/v1"'


class MobileVersion(BaseModel):
    """The content of mobile/versions/<release>.json: all that a device needs, and nothing that changes."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["dual.mobile/v2"] = Field(default="dual.mobile/v2", alias="schema")
    release: str
    mobile: MobilePointer
    policy: dict[str, JsonValue]

    def to_json(self) -> bytes:
        """The bytes of the record."""
        return self.model_dump_json(by_alias=True, indent=1).encode()

    def blobs(self) -> list[str]:
        """Names of the files that it needs."""
        return [pointer.blob for pointer in (self.mobile, self.mobile.selftest) if pointer]


def put_version(store: Store, release: Release) -> MobileVersion:
    """Write the blobs, then the version record, each if absent; `DataError` if a file of the release is damaged."""
    model, selftest = _model_of(store, release), make_selftest(store, release)
    version = _version(release, model, selftest)
    for pointer, data in ((version.mobile, model), (version.mobile.selftest, selftest)):
        if pointer is not None and data is not None:
            _put_blob(store, pointer.blob, data)
    _put_record(store, version)
    return version


def keep_version(store: Store, release: Release, version: MobileVersion) -> None:
    """Write again what of a version has gone meanwhile."""
    if not all(store.exists(name) for name in [*version.blobs(), version_name(release.id)]):
        put_version(store, release)


def version_of(store: Store, release: Release) -> MobileVersion:
    """The version record that a release must have: a function of its files alone; `DataError` if one is damaged."""
    return _version(release, _model_of(store, release), make_selftest(store, release))


def blob_name(sha256: str, kind: str = "tflite") -> str:
    """Where a file lies by its content."""
    return join("mobile", "blobs", f"{sha256}.{kind}")


def version_name(release_id: str) -> str:
    """Where a release's version record lies."""
    return join("mobile", "versions", f"{release_id}.json")


def _version(release: Release, model: bytes, selftest: bytes | None) -> MobileVersion:
    file = release.mobile_file()
    pointer = MobilePointer(
        blob=blob_name(file.sha256),
        sha256=file.sha256,
        size=file.size,
        contract=mobile_contract(release.preprocessing.mobile, len(release.labels)),
        labels=release.labels,
        labels_digest=release.labels_digest,
        minimum_runtime=minimum_runtime(model),
        selftest=_pointer(selftest, "selftest.json") if selftest is not None else None,
    )
    return MobileVersion(release=release.id, mobile=pointer, policy=release.policy)


def _pointer(data: bytes, kind: str) -> BlobPointer:
    digest = sha256_bytes(data)
    return BlobPointer(blob=blob_name(digest, kind), sha256=digest, size=len(data))


def _model_of(store: Store, release: Release) -> bytes:
    source = join(release.folder(), release.models.mobile.path, MOBILE_FILE)
    data, expected = store.get(source).data, release.mobile_file().sha256
    if (digest := sha256_bytes(data)) != expected:
        fix = "The store is damaged: look with `dual release verify`, then run the pipeline again"
        raise DataError(f"sha256 is {digest}, release.json says {expected}", where=f"{store.uri}/{source}", fix=fix)
    return data


def _put_blob(store: Store, name: str, data: bytes) -> None:
    # A name that is a digest has one right content: anything else there is damage, and writing repairs it.
    if not store.put_if_absent(name, data):
        found = store.find(name)
        if found is None or found.data != data:
            store.put(name, data)


def _put_record(store: Store, version: MobileVersion) -> None:
    name, data = version_name(version.release), version.to_json()
    if store.put_if_absent(name, data):
        return
    found = store.find(name)
    if found is None or _FIRST_SCHEMA in found.data:
        store.put(name, data)
    elif found.data != data:
        what = "the version record holds something else than the release says"
        raise AlreadyExistsError(what, where=f"{store.uri}/{name}", fix="It was changed by hand: delete it and publish again")
