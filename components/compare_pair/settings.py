"""Settings of compare_pair."""

from typing import Any, Literal

from pydantic import Field, field_validator

from components.core.errors import UsageError
from components.core.gate import Gate, Threshold, absolute_checks
from components.core.settings import Section

_DEFAULT_GATE = Gate(thresholds={"agreement": Threshold(min=0.5)})


class ComparePairSettings(Section):
    """How the pair is compared, and what the layered policy aims at."""

    target_accuracy: Literal["best"] | float = Field(
        "best", description="What phone and cloud together should reach: an accuracy, or `best`: that of the better one of the two."
    )
    margin: float = Field(0.0, ge=0, lt=1, description="With `best`: how far below the better model the target lies; saves cloud calls.")
    folds: int = Field(10, ge=2, le=1000, description="Parts of the split for the cross-fitted accuracy of the policy.")
    resamples: int = Field(2000, ge=200, le=100_000, description="Bootstrap resamples behind each 95 % interval.")
    disagreements: int = Field(24, ge=0, le=100, description="How many of the most confident disagreements are shown as pictures.")
    gate: Gate = Field(
        _DEFAULT_GATE,
        description="Absolute thresholds on agreement, agreement/<label>, policy_accuracy, cloud_share, cloud_gain, target_reached.",
    )

    @field_validator("target_accuracy", mode="before")
    @classmethod
    def _accuracy(cls, value: Any) -> Any:
        try:
            reachable = value == "best" or 0 < float(value) <= 1
        except (TypeError, ValueError):
            reachable = False
        if not reachable:
            raise ValueError("must be `best`, or an accuracy above 0 and at most 1")
        return value

    @field_validator("gate")
    @classmethod
    def _can_refuse(cls, gate: Gate) -> Gate:
        try:
            absolute_checks("settings", gate, {})
        except UsageError as error:
            # Pydantic turns a ValueError into an error of this key, before a run starts.
            raise ValueError(f"{error.what}. {error.fix}") from None
        if gate.slices:
            raise ValueError("compare_pair has no slices; remove `slices`")
        return gate
