"""How a step finds its settings: the run's settings travel as one JSON text, each step takes the sections that it needs."""

import json
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.errors import UsageError


class Section(BaseModel):
    """Base of every section: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


SectionT = TypeVar("SectionT", bound=Section)


def section(settings: str, name: str, model: type[SectionT]) -> SectionT:
    """Parse the section `name` of the run's settings (JSON); missing means defaults.

    Raises `UsageError` that names the key and what was found.
    """
    try:
        return model.model_validate(json.loads(settings).get(name, {}))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join([name, *(str(part) for part in first["loc"])])
        raise UsageError(
            f"{first['msg']}, found {first['input']!r}", where=f"settings key {key}", fix="Correct the configuration"
        ) from None


def value(settings: str, name: str, default: str | int) -> str | int:
    """A top-level value of the run's settings, such as `seed` or `name`."""
    return json.loads(settings).get(name, default)
