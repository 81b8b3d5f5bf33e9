"""The layered policy: the phone answers if it is sure enough, else it asks the cloud. Part of the release and of the channel."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

NEVER_ASK = 0.0
ALWAYS_ASK = 2.0
"""No score reaches it."""


class LayeredPolicy(BaseModel):
    """What a device needs to know; what else a release's policy says (how it was chosen and measured) is ignored here."""

    model_config = ConfigDict(frozen=True)

    threshold: float = Field(
        ge=NEVER_ASK,
        le=ALWAYS_ASK,
        allow_inf_nan=False,
        description="The phone answers if its highest probability is at least this: 0 never asks the cloud, more than 1 always does.",
    )

    def decide(self, score: float) -> Literal["mobile", "cloud"]:
        """Who answers, given the mobile model's highest probability; a score that is no number asks the cloud."""
        return "mobile" if score >= self.threshold else "cloud"
