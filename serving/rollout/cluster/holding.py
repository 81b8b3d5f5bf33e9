"""What the pods of a host are to hold: the record on the live Service that a rollout writes, and that every such pod follows.

It is the one place that says so. Pods that start, restart or were asleep read it and need nobody else; it is written by the rollout whose
epoch the Service bears, as the selector is. What pods really hold is another question, and only their servers can answer it.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError, model_validator

from components.core.errors import DataError
from components.core.release import release_version
from serving.rollout.cluster.names import HOLDS

_Release = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]
_Digest = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")]
STABLE_LABEL, CANARY_LABEL = "stable", "canary"
LABELS = (STABLE_LABEL, CANARY_LABEL)
"""The labels of a version by which clients, and whoever wants to look first, ask."""


class Holding(BaseModel):
    """The releases that each pod of one host has loaded, and where labels lead."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stable: _Release
    """The release that the label `stable` selects: it has the live traffic."""
    canary: _Release | None = None
    """The one beside it, which the label `canary` selects."""
    releases: dict[_Release, _Digest]
    """Every release to be loaded, with the SHA-256 of its release.json (empty: any)."""

    @model_validator(mode="after")
    def _has_what_it_labels(self) -> Self:
        if missing := {self.stable, self.canary} - {None, *self.releases}:
            raise ValueError(f"release {min(map(str, missing))} has a label and is not to be loaded")
        return self

    def labels(self) -> dict[str, int]:
        """Label → version."""
        releases = {STABLE_LABEL: self.stable, CANARY_LABEL: self.canary}
        return {label: release_version(release) for label, release in releases.items() if release}

    def versions(self) -> dict[int, str]:
        """Version → release, the stable one first: it is what must be there soonest."""
        ordered = sorted(self.releases, key=lambda release: (release != self.stable, release))
        return {release_version(release): release for release in ordered}


_Record = TypeAdapter(dict[str, Holding])


def holdings_of(service: Mapping[str, Any]) -> dict[str, Holding]:
    """Host → what its pods are to hold, by the live Service; empty if it says nothing, `DataError` if that is malformed."""
    metadata = service["metadata"]
    text = (metadata.get("annotations") or {}).get(HOLDS, "")
    try:
        return _Record.validate_json(text) if text else {}
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        where = f"Service {metadata.get('namespace', '')}/{metadata.get('name', '')}, annotation {HOLDS}"
        raise DataError(f"is malformed: {what}", where=where, fix="A rollout writes it anew: dual rollout start") from None


def record_text(holdings: Mapping[str, Holding]) -> str:
    """The annotation's text; the same holdings always give the same text."""
    return json.dumps({host: each.model_dump(mode="json", exclude_none=True) for host, each in holdings.items()}, sort_keys=True)


def refusal_of(release: str) -> str:
    """How the line begins by which a pod's holder says that a release will not be had, however long one waits."""
    return f"error: release {release} is refused: "
