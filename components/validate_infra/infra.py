"""The content of infra.json: what was measured and asked, and the verdict."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from components.core.examples import read_model
from components.core.gate import Verdict

MANIFEST = "infra.json"


class MalformedRequest(BaseModel):
    """A malformed request and its refusal."""

    case: str
    protocol: str
    answer: str
    clean: bool


class Side(BaseModel):
    """One model as it was loaded and queried; `failure` says why it could not be."""

    failure: str = ""
    measurements: dict[str, float] = {}
    """load_seconds, start_seconds, p50_ms, p99_ms, first_ms, memory_mb, size_mb, as far as they were reached."""
    differences: dict[str, list[float]] = {}
    """Protocol → the largest difference of each golden image's answer from the evaluation's."""
    mistaken: dict[str, list[str]] = {}
    """Protocol → golden images whose label differs."""
    malformed: list[MalformedRequest] = []
    warmup: tuple[int, int] = (0, 0)
    """Warm-up requests written, and replayed by the server."""
    alive: bool = False
    """Whether it still answered the golden images after the malformed requests."""
    log_tail: str = ""


class Infra(BaseModel):
    """infra.json."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["dual.infra/v1"] = Field(default="dual.infra/v1", alias="schema")
    server: str
    """What served the cloud model."""
    golden: int
    """Number of golden images."""
    cloud: Side
    mobile: Side
    verdict: Verdict


def read_infra(folder: Path) -> Infra:
    """Load `<folder>/infra.json`; `DataError` if it is missing or malformed."""
    return read_model(Infra, folder / MANIFEST, "Run the step validate_infra again")
