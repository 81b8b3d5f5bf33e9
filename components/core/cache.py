"""Results of slow steps, kept in the store under a key of their inputs, their settings and their source code.

KFP's own cache knows neither the imported source nor deleted artifacts, and a cached task leaves no record in the new run
(docs/decisions/0001-step-cache.md); this one does, and works alike on every target.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from components.core.digest import sha256_json, sha256_source
from components.core.record import StepRecord
from components.core.stores import Store, join

_DONE = "complete.json"


def cached_result(
    record: StepRecord, output: Path, inputs: Mapping[str, Any], source: Iterable[str], build: Callable[[Path], None]
) -> bool:
    """Fill the folder `output` by `build(output)`, or from the store if the same was built before; True if it was.

    `inputs` is a JSON value that names all that the result depends on (digests, settings, seed); `source` lists the Python
    packages whose code it depends on. The record's pieces are kept with the result and restored with it. The completion mark
    is written last, so that a build killed half-way is never taken for a result.
    """
    key, prefix = _place(record.step, inputs, source)
    if record.store.exists(join(prefix, _DONE)):
        record.store.get_tree(join(prefix, "output"), output)
        record.store.get_tree(join(prefix, "record"), pieces := output.parent / f".{output.name}.record")
        record.load_pieces(pieces)
        shutil.rmtree(pieces)
        record.say(f"unchanged inputs: reused the result {key}")
        return True
    output.mkdir(parents=True, exist_ok=True)
    build(output)
    _keep(record, prefix, output)
    return False


def has_result(store: Store, step: str, inputs: Mapping[str, Any], source: Iterable[str]) -> bool:
    """Whether `cached_result` would build nothing in that step."""
    return store.exists(join(_place(step, inputs, source)[1], _DONE))


def _place(step: str, inputs: Mapping[str, Any], source: Iterable[str]) -> tuple[str, str]:
    key = sha256_json({"inputs": inputs, "source": sha256_source(source)})[:24]
    return key, join("cache", step, key)


def _keep(record: StepRecord, prefix: str, output: Path) -> None:
    pieces = output.parent / f".{output.name}.record"
    record.save_pieces(pieces)
    record.store.put_tree(join(prefix, "output"), output)
    record.store.put_tree(join(prefix, "record"), pieces)
    record.store.put(join(prefix, _DONE), b"{}")
    shutil.rmtree(pieces)
