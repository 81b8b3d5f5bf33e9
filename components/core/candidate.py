"""A candidate: a SavedModel that lies in the store for minutes, so that a pod can fetch it before there is a release (docs/decisions/0006).

Layout: `candidates/<digest>/candidate.json` and `candidates/<digest>/cloud/…`. The digest is that of candidate.json, which names the run
and the moment: no two attempts share a folder, so whoever takes one away harms nobody else. candidate.json is written first and deleted
last: whatever a killed process leaves can be found by it.
"""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from components.core.digest import sha256_bytes
from components.core.errors import DataError
from components.core.release import Files, release_version, tree_files
from components.core.stores import Store, join

CANDIDATES = "candidates"
MANIFEST = "candidate.json"
KEPT = timedelta(days=1)
"""A check takes minutes: what is older than this was left by a process that is gone."""


class Candidate(BaseModel):
    """The content of candidate.json."""

    model_config = ConfigDict(populate_by_name=True, frozen=True)

    schema_: Literal["dual.candidate/v1"] = Field(default="dual.candidate/v1", alias="schema")
    name: str
    """Name of the served model."""
    run_id: str
    created: AwareDatetime
    files: Files
    """Relative to `cloud/`."""


def candidate_folder(digest: str) -> str:
    """The candidate's folder in the store."""
    return join(CANDIDATES, digest)


def cloud_folder(digest: str) -> str:
    """The SavedModel's folder in the store."""
    return join(candidate_folder(digest), "cloud")


def candidate_version(digest: str) -> int:
    """The number under which TF Serving knows the candidate."""
    return release_version(digest[:12])


def offer_candidate(store: Store, saved_model: Path, *, name: str, run_id: str) -> str:
    """Put the SavedModel into the store as a candidate; its digest."""
    candidate = Candidate(name=name, run_id=run_id, created=datetime.now(UTC), files=tree_files(saved_model))
    manifest = candidate.model_dump_json(by_alias=True, indent=1).encode()
    digest = sha256_bytes(manifest)
    store.put(join(candidate_folder(digest), MANIFEST), manifest)
    for file in candidate.files:
        store.put_file(join(cloud_folder(digest), file), saved_model / file)
    return digest


def withdraw_candidate(store: Store, digest: str) -> None:
    """Take the candidate out of the store; nothing to do if it is gone."""
    for name in list(store.list(f"{cloud_folder(digest)}/")):
        store.delete(name)
    store.delete(join(candidate_folder(digest), MANIFEST))


def withdraw_leftovers(store: Store, run_id: str) -> list[str]:
    """Take out what killed processes left: earlier attempts of this run, and whatever is older than a day. Their digests."""
    oldest = datetime.now(UTC) - KEPT
    left = [digest for digest, found in _candidates(store) if found.run_id == run_id or found.created < oldest]
    for digest in left:
        withdraw_candidate(store, digest)
    return left


def read_candidate(store: Store, digest: str) -> Candidate:
    """The candidate of that digest; `DataError` if the store has none, or its candidate.json is another one."""
    name = join(candidate_folder(digest), MANIFEST)
    found = store.find(name)
    if found is None:
        fix = "Is it the store that the step wrote to? See validate_infra.kubernetes.store, and the ConfigMap classifier-store, key uri"
        raise DataError(f"there is no candidate '{digest}'", where=store.uri, fix=fix)
    if (actual := sha256_bytes(found.data)) != digest:
        raise DataError(f"sha256 is {actual}", where=f"{store.uri}/{name}", fix="It was changed after it was written: run the step again")
    return _parse(found.data, f"{store.uri}/{name}")


def _parse(data: bytes, where: str) -> Candidate:
    try:
        return Candidate.model_validate_json(data)
    except ValidationError as error:
        what, fix = f"is no candidate: {error.errors()[0]['msg']}", "The step's image and the pod's are of different versions"
        raise DataError(what, where=where, fix=fix) from None


def _candidates(store: Store) -> Iterator[tuple[str, Candidate]]:
    for name in store.list(f"{CANDIDATES}/"):
        folder, _, file = name.removeprefix(f"{CANDIDATES}/").partition("/")
        found = store.find(name) if file == MANIFEST else None
        # What is not ours to understand is not ours to delete.
        with suppress(DataError):
            if found is not None:
                yield folder, _parse(found.data, name)
