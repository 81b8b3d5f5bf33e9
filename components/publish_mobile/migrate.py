"""Out of Firebase ML: what it hosts, as files in a store that apps read through Cloud Storage for Firebase.

    hosted/<display name>/<sha256>.tflite      never changes
    hosted/<display name>.json                 which file is current, its size, sha256 and tags ("dual.hosted/v1"); swapped, never torn

This is for apps as they are: they exchange `getModel(name)` for two downloads. A model that a release of the store holds can be published
with all that a channel gives beside that; the result says which release it is. Nothing is changed or removed in Firebase ML.
"""

import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.core.digest import sha256_bytes
from components.core.errors import ConflictError, DataError, StaleError
from components.core.release import list_releases
from components.core.stores import Store, join, open_store
from components.publish_mobile.firebase import firebase_app

_ATTEMPTS = 5
_SOURCE = "gs://"


class HostedFile(BaseModel):
    """The content of hosted/<display name>.json."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["dual.hosted/v1"] = Field(default="dual.hosted/v1", alias="schema")
    name: str
    file: str
    sha256: str
    size: int
    tags: list[str] = []
    migrated: str
    """UTC, ISO 8601."""

    def to_json(self) -> bytes:
        """The bytes of the file."""
        return self.model_dump_json(by_alias=True, indent=1).encode()


@dataclass(frozen=True)
class Migrated:
    """What became of one hosted model."""

    name: str
    file: str
    """Where it lies in the store; empty if it could not be had."""
    release: str
    """The release of the store that holds the same model, or empty."""
    problem: str = ""


def migrate_models(store: Store, *, project: str, name: str = "") -> list[Migrated]:
    """Copy every published model of the project (or the one of that name) into the store; repeats safely.

    A model whose file can't be had is in the answer with its problem. Raises `DataError` if there is no published model to copy.
    """
    releases = {release.mobile_file().sha256: release.id for release in list_releases(store)}
    with warnings.catch_warnings(), firebase_app(project) as app:
        warnings.simplefilter("ignore", DeprecationWarning)
        models = [model for model in _models(app) if model.published and name in ("", model.display_name)]
        if not models:
            what = f"no published model is called '{name}'" if name else "no model is published"
            raise DataError(what, where=f"Firebase project {project}", fix="Look in the console, and check the project's id")
        return [_migrate(store, model, releases) for model in models]


def _models(app: Any) -> list[Any]:
    from firebase_admin import ml

    return list(ml.list_models(app=app).iterate_all())


def _migrate(store: Store, model: Any, releases: dict[str, str]) -> Migrated:
    try:
        data = _download(model)
    except DataError as error:
        return Migrated(model.display_name, "", "", str(error))
    digest = sha256_bytes(data)
    file = join("hosted", model.display_name, f"{digest}.tflite")
    if not store.put_if_absent(file, data) and store.get(file).data != data:
        store.put(file, data)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    wanted = HostedFile(name=model.display_name, file=file, sha256=digest, size=len(data), tags=model.tags or [], migrated=now)
    _point(store, wanted)
    return Migrated(model.display_name, file, releases.get(digest, ""))


def _download(model: Any) -> bytes:
    source = getattr(model.model_format, "model_source", None)
    address = source.gcs_tflite_uri if source else ""
    if not address.startswith(_SOURCE):
        fix = "Download it in the console, and put it into the bucket by hand"
        raise DataError("Firebase ML does not say where its file lies", where=model.display_name, fix=fix)
    bucket, _, name = address.removeprefix(_SOURCE).partition("/")
    return open_store(f"{_SOURCE}{bucket}").get(name).data


def _point(store: Store, wanted: HostedFile) -> None:
    name = join("hosted", f"{wanted.name}.json")
    for _ in range(_ATTEMPTS):
        found = store.find(name)
        if found is not None and _same(found.data, wanted):
            return
        try:
            store.swap(name, wanted.to_json(), found.generation if found else None)
        except StaleError:
            continue
        return
    raise ConflictError("other migrations are under way", where=f"{store.uri}/{name}", fix="Run again when they are done")


def _same(data: bytes, wanted: HostedFile) -> bool:
    try:
        found = HostedFile.model_validate_json(data)
    except ValidationError:
        return False
    return found.model_copy(update={"migrated": wanted.migrated}) == wanted
