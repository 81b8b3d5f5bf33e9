"""Half-finished work in the store: checkpoints that a killed training resumes from, features that another training reuses.

Each piece is one object, so that it's there whole or not at all. Arrays only: nothing is ever unpickled.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zipfile import BadZipFile

import numpy as np

from components.core.errors import DataError
from components.core.stores import Store, join

Array = np.ndarray[Any, Any]
_FACTS = "facts"


@dataclass(frozen=True)
class Piece:
    """What was kept: arrays in order, and a JSON object about them."""

    arrays: list[Array]
    facts: dict[str, Any]


class Workspace:
    """A folder of pieces in a store."""

    def __init__(self, store: Store, prefix: str) -> None:
        """Use the objects below `prefix`."""
        self.store, self.prefix = store, prefix

    def save(self, name: str, arrays: Sequence[Array], facts: Mapping[str, Any]) -> None:
        """Keep a piece, replacing one of that name in a single atomic write."""
        buffer = io.BytesIO()
        members: dict[str, Any] = {f"{index:05d}": array for index, array in enumerate(arrays)}
        members[_FACTS] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        np.savez(buffer, **members)
        self.store.put(self._name(name), buffer.getvalue())

    def load(self, name: str) -> Piece | None:
        """The piece, or None if there is none; `DataError` if it is damaged."""
        found = self.store.find(self._name(name))
        if found is None:
            return None
        try:
            with np.load(io.BytesIO(found.data), allow_pickle=False) as file:
                facts = json.loads(file[_FACTS].tobytes())
                return Piece([file[key] for key in sorted(file.files) if key != _FACTS], facts)
        except (ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
            where = f"{self.store.uri}/{self._name(name)}"
            raise DataError(f"the checkpoint is damaged ({error})", where=where, fix="Delete it and run again") from None

    def has(self, name: str) -> bool:
        """Whether there is a piece of that name, whole or damaged."""
        return self.store.exists(self._name(name))

    def delete(self, name: str) -> None:
        """Forget a piece; no error if there is none."""
        self.store.delete(self._name(name))

    def _name(self, name: str) -> str:
        return join(self.prefix, f"{name}.npz")
