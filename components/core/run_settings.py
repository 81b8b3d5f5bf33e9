"""A run's settings in its record: `runs/<run-id>/settings.json`, written once by the first step and read by every other.

Only one step can resolve them where no command line did (Kubeflow, Vertex), and the exit step can't take another task's outputs.
"""

import json
from typing import Any

from components.core.errors import AlreadyExistsError, DataError, MissingObjectError
from components.core.stores import Store, join

NAME = "settings.json"


def write_settings(store: Store, run_id: str, settings: str) -> None:
    """Keep the settings (JSON); the same again is fine, so that a step may be repeated.

    Raises `AlreadyExistsError` with the keys that differ if the run began with other settings.
    """
    name = join("runs", run_id, NAME)
    if store.put_if_absent(name, settings.encode()):
        return
    before = store.get(name).data.decode()
    if before != settings:
        keys = ", ".join(_differences(json.loads(before), json.loads(settings)))
        fix = "Give this run a name of its own, or the settings that it began with"
        raise AlreadyExistsError(f"this run began with other settings ({keys})", where=f"{store.uri}/{name}", fix=fix)


def read_settings(store: Store, run_id: str, default: str | None = None) -> str:
    """The run's settings (JSON); `default` if they were never written, or `DataError` without one."""
    name = join("runs", run_id, NAME)
    try:
        return store.get(name).data.decode()
    except MissingObjectError:
        if default is not None:
            return default
        fix = "Start the run with its first step, ingest, which writes them; or name the store that it wrote to"
        raise DataError("the run has no settings", where=f"{store.uri}/{name}", fix=fix) from None


def _differences(before: Any, after: Any, key: str = "") -> list[str]:
    """Dotted keys whose values differ."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return [key] if before != after else []
    names = sorted({*before, *after})
    return [found for name in names for found in _differences(before.get(name), after.get(name), f"{key}.{name}" if key else name)]
