"""Settings of evaluate_cloud and evaluate_mobile."""

from pydantic import Field, field_validator

from components.core.errors import UsageError
from components.core.examples import Split
from components.core.gate import Gate, Threshold, check_gate
from components.core.settings import Section

_DEFAULT_GATE = Gate(thresholds={"accuracy": Threshold(min=0.6, max_drop=0.03)})


class EvaluateSettings(Section):
    """How an exported model is measured, and what it must reach."""

    split: Split = Field("test", description="The split that is measured.")
    batch_size: int = Field(32, ge=1, le=4096, description="Images per call of the cloud model; the mobile model takes one at a time.")
    resamples: int = Field(2000, ge=200, le=100_000, description="Bootstrap resamples behind each 95 % interval.")
    calibration_bins: int = Field(15, ge=2, le=100, description="Equal-width confidence bins of the calibration error.")
    automatic_slices: bool = Field(True, description="Also slice by terciles of brightness and size of the images.")
    max_slice_values: int = Field(50, ge=1, description="A slice column with more distinct values is left out, with a warning.")
    worst_mistakes: int = Field(24, ge=0, le=100, description="How many of the most confident mistakes are shown as pictures.")
    gate: Gate = Field(_DEFAULT_GATE, description="The thresholds; metrics and slices as in docs/gates.md.")
    reset_baseline: str = Field(
        "",
        max_length=500,
        description="A reason to ignore the baseline in this run: only absolute thresholds apply then, and the verdict quotes the reason.",
    )

    @field_validator("gate")
    @classmethod
    def _can_refuse(cls, gate: Gate) -> Gate:
        try:
            check_gate("settings", gate)
        except UsageError as error:
            # Pydantic turns a ValueError into an error of this key, before a run starts.
            raise ValueError(f"{error.what}. {error.fix}") from None
        return gate
