"""The settings of a run started from the command line: five layers, each stronger than the one before.

    defaults  <  profile (quick, standard, thorough or a file)  <  --config FILE  <  DUAL_* environment  <  --set key=value

Nested keys are dotted in flags (`--set train_cloud.image_size=96`) and joined by two underscores in the environment
(`DUAL_TRAIN_CLOUD__IMAGE_SIZE=96`). Every error names the key, the layer that set it and what was found there.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from components.configuration.layers import PROFILES, Layer, merge, profile_layer, profile_names, read_yaml, resolve
from components.configuration.model import Settings
from components.core.errors import UsageError

__all__ = ["PROFILES", "Settings", "load_settings", "overlay", "parse_overrides", "profile_names", "read_yaml"]


class _FromEnvironment(Settings, BaseSettings):
    """The same fields, read from DUAL_*. Not the model itself: inside a step, a variable of the pod must not change the run."""

    model_config = SettingsConfigDict(env_prefix="DUAL_", env_nested_delimiter="__", extra="forbid", frozen=True)


def load_settings(profile: str = "quick", config: Path | None = None, overrides: Sequence[str] = ()) -> Settings:
    """Merge the five layers and check the result; `UsageError` says what is wrong, in which layer."""
    return resolve([_profile(profile), *_above_profile(config, overrides)])


def overlay(profile: str = "quick", config: Path | None = None, overrides: Sequence[str] = ()) -> tuple[str, dict[str, Any]]:
    """What a run elsewhere is told: the name of a profile that it has, or "", and everything that is laid over it.

    A profile of one's own travels with what is over it, since the other machine has no such file. The result is checked like
    `load_settings`.
    """
    load_settings(profile, config, overrides)
    shipped = profile in profile_names()
    merged: dict[str, Any] = {}
    for _, layer in [*([] if shipped else [_profile(profile)]), *_above_profile(config, overrides)]:
        merged = merge(merged, layer)
    return (profile if shipped else "", merged)


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """`["a.b=3"]` → `{"a": {"b": 3}}`; values are YAML."""
    result: dict[str, Any] = {}
    for text in overrides:
        key, separator, raw = text.partition("=")
        if not separator or not all(key.split(".")):
            raise UsageError(f"'{text}' is not key=value", where="--set", fix="Write for example --set train_cloud.image_size=96")
        try:
            nested: Any = yaml.safe_load(raw)
        except yaml.YAMLError:
            raise UsageError(f"the value '{raw}' is not YAML", where=f"--set {key}", fix="Quote it") from None
        for part in reversed(key.split(".")):
            nested = {part: nested}
        result = merge(result, nested)
    return result


def _profile(profile: str) -> Layer:
    if profile.endswith((".yaml", ".yml")):
        return (profile, {"profile": profile, **read_yaml(Path(profile))})
    return profile_layer(profile)


def _above_profile(config: Path | None, overrides: Sequence[str]) -> list[Layer]:
    file: list[Layer] = [] if config is None else [(str(config), read_yaml(config))]
    environment = EnvSettingsSource(_FromEnvironment)()
    return [*file, ("the environment (DUAL_*)", environment), ("--set", parse_overrides(overrides))]
