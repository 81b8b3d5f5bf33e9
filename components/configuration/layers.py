"""Layers of settings laid over one another, and errors that name the key, the layer that set it and what was found there."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from components.configuration.model import Settings
from components.core.errors import UsageError

PROFILES = Path(__file__).with_name("profiles")

Layer = tuple[str, Mapping[str, Any]]
"""What an error calls it, and its nested values."""


def resolve(layers: Sequence[Layer]) -> Settings:
    """The settings that the layers come to, each stronger than the one before; `UsageError` says what is wrong, in which layer."""
    merged: dict[str, Any] = {}
    for _, layer in layers:
        merged = merge(merged, layer)
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        raise _explain(error, layers) from None


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, mapping by mapping; everything else is replaced."""
    merged = dict(below)
    for key, new in above.items():
        old = merged.get(key)
        merged[key] = merge(old, new) if isinstance(old, Mapping) and isinstance(new, Mapping) else new
    return merged


def profile_names() -> list[str]:
    """The profiles that come with the package."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def profile_layer(profile: str, *, where: str = "--profile") -> Layer:
    """One of the profiles that come with the package, which names itself; `UsageError` lists them otherwise."""
    path = PROFILES / f"{profile}.yaml"
    if profile not in profile_names():
        known = ", ".join(profile_names())
        raise UsageError(f"there is no profile '{profile}'", where=where, fix=f"Known: {known}; or give a .yaml file to dual")
    return (f"profile {profile}", {"profile": profile, **read_yaml(path)})


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file whose top level is a mapping; `UsageError` names the file and the line otherwise."""
    try:
        text = path.read_text()
    except OSError as error:
        raise UsageError(f"can't be read ({error.strerror})", where=str(path), fix="Check the path and its permissions") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"is not YAML ({error})", where=str(path), fix="Correct the file") from None
    return parse_mapping(text, where=str(path))


def parse_mapping(text: str, *, where: str) -> dict[str, Any]:
    """YAML or JSON text whose top level is a mapping (nothing is an empty one); `UsageError` names `where` and the line otherwise."""
    content = parse_yaml(text, where=where)
    if not isinstance(content, dict | None):
        raise UsageError(f"holds a {type(content).__name__}, not sections", where=where, fix="Write `section: {key: value}`")
    return content or {}


def parse_yaml(text: str, *, where: str) -> Any:
    """Any value in YAML or JSON text; `UsageError` names `where` and the line if it is neither."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"is not YAML ({' '.join(str(error).split())})", where=where, fix="Correct it") from None


def _explain(error: ValidationError, layers: Sequence[Layer]) -> UsageError:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    origin = next((name for name, layer in reversed(layers) if _holds(layer, path)), "the defaults")
    if first["type"] == "extra_forbidden":
        return UsageError(f"there is no setting '{'.'.join(path)}'{_did_you_mean(path)}", where=origin, fix="See docs/configuration.md")
    found = first["input"]
    what = f"{'.'.join(path)}: {first['msg']}; found {found!r} ({type(found).__name__})"
    return UsageError(what, where=origin, fix="See docs/configuration.md")


def _holds(layer: Mapping[str, Any], path: Sequence[str]) -> bool:
    current: Any = layer
    for part in path:
        if not isinstance(current, Mapping) or part not in current:
            # A missing or ill-typed parent is this layer's doing if it set the parent to something else than a mapping.
            return current is not layer and not isinstance(current, Mapping)
        current = current[part]
    return True


def _did_you_mean(path: Sequence[str]) -> str:
    model: Any = Settings
    for part in path[:-1]:
        model = model.model_fields[part].annotation if part in getattr(model, "model_fields", {}) else None
    near = difflib.get_close_matches(path[-1], list(getattr(model, "model_fields", {})), n=1)
    return f"; did you mean '{'.'.join([*path[:-1], near[0]])}'?" if near else ""
