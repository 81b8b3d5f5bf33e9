"""The run's settings: one model, five layers, each stronger than the one before.

    defaults  <  profile (quick, standard, thorough or a file)  <  --config FILE  <  DUAL_* environment  <  --set key=value

Nested keys are dotted in flags (`--set train_cloud.image_size=96`) and joined by two underscores in the environment
(`DUAL_TRAIN_CLOUD__IMAGE_SIZE=96`). Every error names the key, the layer that set it and what was found there.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from components.assemble_release.settings import AssembleReleaseSettings
from components.compare_pair.settings import ComparePairSettings
from components.core.errors import UsageError
from components.core.settings import Section
from components.evaluation.settings import EvaluateSettings
from components.ingest.settings import IngestSettings
from components.publish_mobile.settings import PublishMobileSettings
from components.quantize_mobile.settings import QuantizeSettings
from components.report.settings import ReportSettings
from components.roll_out_cloud.settings import RollOutCloudSettings
from components.training.settings import CloudTrainSettings, MobileTrainSettings
from components.validate_data.settings import ValidateDataSettings
from components.validate_infra.settings import ValidateInfraSettings

SectionT = TypeVar("SectionT", bound=Section)
PROFILES = Path(__file__).with_name("profiles")


def _defaults(model: type[SectionT]) -> SectionT:
    return model.model_validate({})


class Settings(BaseSettings):
    """Everything that a run can be told; one section per step, named like the step."""

    model_config = SettingsConfigDict(env_prefix="DUAL_", env_nested_delimiter="__", extra="forbid", frozen=True)

    name: str = Field("classifier", pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,62}$", description="Name of the served model.")
    profile: str = Field("quick", description="The profile that these settings started from.")
    seed: int = Field(1, ge=0, description="Seed of every random choice: same seed, same data, same metrics on a CPU.")
    ingest: IngestSettings = _defaults(IngestSettings)
    validate_data: ValidateDataSettings = _defaults(ValidateDataSettings)
    train_cloud: CloudTrainSettings = _defaults(CloudTrainSettings)
    train_mobile: MobileTrainSettings = _defaults(MobileTrainSettings)
    quantize_mobile: QuantizeSettings = _defaults(QuantizeSettings)
    evaluate_cloud: EvaluateSettings = _defaults(EvaluateSettings)
    evaluate_mobile: EvaluateSettings = _defaults(EvaluateSettings)
    compare_pair: ComparePairSettings = _defaults(ComparePairSettings)
    validate_infra: ValidateInfraSettings = _defaults(ValidateInfraSettings)
    assemble_release: AssembleReleaseSettings = _defaults(AssembleReleaseSettings)
    roll_out_cloud: RollOutCloudSettings = _defaults(RollOutCloudSettings)
    publish_mobile: PublishMobileSettings = _defaults(PublishMobileSettings)
    report: ReportSettings = _defaults(ReportSettings)


Layer = tuple[str, Mapping[str, Any]]


def load_settings(profile: str = "quick", config: Path | None = None, overrides: Sequence[str] = ()) -> Settings:
    """Merge the five layers and check the result; `UsageError` says what is wrong, in which layer."""
    layers = [_profile_layer(profile)]
    if config is not None:
        layers.append((str(config), read_yaml(config)))
    layers.append(("the environment (DUAL_*)", EnvSettingsSource(Settings)()))
    layers.append(("--set", parse_overrides(overrides)))
    merged: dict[str, Any] = {"profile": profile}
    for _, layer in layers:
        merged = _merge(merged, dict(layer))
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        raise _explain(error, layers) from None


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
        result = _merge(result, nested)
    return result


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file whose top level is a mapping; `UsageError` names the file and the line otherwise."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UsageError(f"can't be read ({error.strerror})", where=str(path), fix="Check the path and its permissions") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"is not YAML ({' '.join(str(error).split())})", where=str(path), fix="Correct the file") from None
    if not isinstance(content, dict | None):
        raise UsageError(f"holds a {type(content).__name__}, not sections", where=str(path), fix="Write `section: {key: value}`")
    return content or {}


def profile_names() -> list[str]:
    """The profiles that come with the package."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, mapping by mapping."""
    merged = dict(below)
    for key, new in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, new) if isinstance(old, Mapping) and isinstance(new, Mapping) else new
    return merged


def _profile_layer(profile: str) -> Layer:
    path = PROFILES / f"{profile}.yaml"
    if path.is_file():
        return (f"profile {profile}", read_yaml(path))
    if profile.endswith((".yaml", ".yml")):
        return (profile, read_yaml(Path(profile)))
    known = ", ".join(profile_names())
    raise UsageError(f"there is no profile '{profile}'", where="--profile", fix=f"Known: {known}; or give a .yaml file")


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
