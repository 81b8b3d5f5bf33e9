"""What a pod's own server says that it holds: the state of each version, and where a label leads. Nobody else is believed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.errors import DualError
from serving.rollout.analysis.pods import PodAccess, RefusedError

AVAILABLE = "AVAILABLE"
_NONE = (400, 404)
"""TF Serving's answers about a label that it does not have, and about a model without any version."""


@dataclass(frozen=True)
class Held:
    """One server at one moment."""

    states: Mapping[int, str] = field(default_factory=dict)
    """Version → START, LOADING, AVAILABLE, UNLOADING or END."""
    failures: Mapping[int, str] = field(default_factory=dict)
    """Version → why it could not be loaded."""
    labels: Mapping[str, int] = field(default_factory=dict)
    """Label that was asked for → version, where it leads to one."""
    problem: str = ""
    """Why nothing is known; empty if the server answered."""


class _Status(BaseModel):
    model_config = ConfigDict(extra="ignore")

    error_message: str = ""


class _Version(BaseModel):
    model_config = ConfigDict(extra="ignore")

    version: int
    state: str
    status: _Status = _Status()


class _Versions(BaseModel):
    model_config = ConfigDict(extra="ignore")

    model_version_status: list[_Version]


def ask_held(access: PodAccess, model: str, labels: Sequence[str]) -> Held:
    """What the server behind `access` says of a model; a server without an answer gives a `Held` that says why, and never an error."""
    path = f"/v1/models/{model}"
    try:
        versions = _versions(access, path)
        where = {label: _versions(access, f"{path}/labels/{label}") for label in labels}
    except DualError as error:
        return Held(problem=str(error))
    states = {each.version: each.state for each in versions}
    failures = {each.version: each.status.error_message for each in versions if each.state == "END" and each.status.error_message}
    return Held(states, failures, {label: found[0].version for label, found in where.items() if len(found) == 1})


def _versions(access: PodAccess, path: str) -> list[_Version]:
    try:
        text = access.get(path)
    except RefusedError as error:
        if error.status in _NONE:
            return []
        raise
    try:
        return _Versions.model_validate_json(text).model_version_status
    except ValidationError:
        raise DualError(f"answered no status: {text[:200]}", where=path, fix="Is it TF Serving that answers there?") from None
