"""A step's work shared out over several pods: which part is whose, and the pieces that they leave in the store.

A piece is kept under a digest of all that it depends on. Whoever needs it takes it from there, or makes it: a piece that is missing
or damaged costs time and never changes a result.
"""

import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints, ValidationError

from components.core.digest import sha256_file, sha256_json, sha256_source
from components.core.errors import DataError, MissingObjectError, UsageError
from components.core.settings import Section
from components.core.stores import Store, join

_SHARD = re.compile(r"([1-9]\d{0,5}) of ([1-9]\d{0,5})")
_MARK = "piece.json"


class ShardSettings(Section):
    """How work is shared out at a site that does so (`sharding` in its file)."""

    images: int = Field(default=20_000, ge=1, description="Images that one shard of ingest, evaluation or batch prediction takes at most.")
    most: int = Field(default=64, ge=1, le=1000, description="Most shards of a step; beyond, each takes more images.")


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `number` (from 1) of `count` parts in a fixed order."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number} of {self.count}"

    def of(self, total: int) -> tuple[int, int]:
        """Where it begins and ends (exclusive) in `total` things: neighbours join, and differ by at most one thing in length."""
        return total * (self.number - 1) // self.count, total * self.number // self.count

    def title(self, step: str) -> str:
        """The name of its record: `ingest_shard-2-of-7`."""
        return f"{step}-{self.number}-of-{self.count}"


WHOLE = Shard(1, 1)
"""Everything: what a run on one machine does."""


def parse_shard(text: str) -> Shard:
    """`2 of 7`; `UsageError` for anything else."""
    match = _SHARD.fullmatch(text)
    if match is None or int(match[1]) > int(match[2]):
        raise UsageError(f"{text!r} is no shard", where="input shard", fix="Write for example '2 of 7', as the step plan_shards does")
    return Shard(int(match[1]), int(match[2]))


def all_shards(count: int) -> list[Shard]:
    """Every part of `count`, in order."""
    return [Shard(number + 1, count) for number in range(count)]


def shard_count(images: int, settings: ShardSettings) -> int:
    """How many shards so many images need: at least one."""
    return max(1, min(settings.most, -(-images // settings.images)))


class _File(BaseModel):
    sha256: str
    size: int


class _Mark(BaseModel):
    """The content of piece.json, which is written last: the piece is whole when this is there."""

    files: dict[Annotated[str, StringConstraints(pattern=r"^\w+\.\w+$")], _File]
    """By plain names: they become files of this machine."""


@dataclass(frozen=True)
class Pieces:
    """The pieces of one step, below `cache/<step>/pieces/` of the store."""

    store: Store
    step: str
    source: Iterable[str]
    """Python packages whose code a piece depends on."""

    def take(self, inputs: Mapping[str, Any], folder: Path, build: Callable[[Path], None]) -> bool:
        """Fill the empty folder with the piece of these inputs; True if it was in the store, False if `build` made it, and it was kept.

        `inputs` is a JSON value that names all that the piece depends on.
        """
        prefix = self._prefix(inputs)
        if self._fetch(prefix, folder):
            return True
        build(folder)
        self._keep(prefix, folder)
        return False

    def drop(self, inputs: Mapping[str, Any]) -> None:
        """Remove a piece that nobody needs any more; the mark first, so that no reader takes what is left for whole."""
        prefix = self._prefix(inputs)
        for name in [join(prefix, _MARK), *self.store.list(f"{prefix}/")]:
            self.store.delete(name)

    def _prefix(self, inputs: Mapping[str, Any]) -> str:
        key = sha256_json({"inputs": inputs, "source": sha256_source(self.source)})[:24]
        return join("cache", self.step, "pieces", key)

    def _fetch(self, prefix: str, folder: Path) -> bool:
        """Whether the piece is there, whole; what was fetched of one that is not is removed."""
        try:
            mark = _Mark.model_validate_json(self.store.get(join(prefix, _MARK)).data)
            for name, said in mark.files.items():
                self._fetch_file(join(prefix, name), folder / name, said)
        except (MissingObjectError, ValidationError, DataError):
            # Absent, being removed by a run that is done with it, or not what was written: it is made anew.
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            return False
        return True

    def _fetch_file(self, name: str, path: Path, said: _File) -> None:
        self.store.copy_file(name, path, limit=said.size)
        if sha256_file(path) != said.sha256:
            raise DataError("is not what was written", where=f"{self.store.uri}/{name}", fix="Delete it")

    def _keep(self, prefix: str, folder: Path) -> None:
        paths = sorted(path for path in folder.iterdir() if path.is_file())
        for path in paths:
            self.store.put_file(join(prefix, path.name), path)
        mark = _Mark(files={path.name: _File(sha256=sha256_file(path), size=path.stat().st_size) for path in paths})
        self.store.put(join(prefix, _MARK), mark.model_dump_json().encode())
