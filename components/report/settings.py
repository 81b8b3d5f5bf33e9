"""Settings of the report."""

from typing import Literal

from pydantic import Field

from components.core.settings import Section


class ReportSettings(Section):
    """What the report computes beside what the steps recorded."""

    price_per_hour: float | None = Field(
        None,
        ge=0,
        description="Your price of one hour of the machine that runs the steps. null: the price table's, for the cheapest machine with as "
        "many cores, as much memory and the same accelerators as each step was given (`dual cost prices`).",
    )
    currency: str = Field("USD", max_length=8, description="Currency of `price_per_hour`; the price table has its own.")
    service: Literal["compute", "vertex"] = Field(
        "compute", description="Whose prices count: Compute Engine's (and so GKE's nodes), or Vertex AI's custom training."
    )
    region: str = Field("us-central1", description="Region whose prices count.")
    spot: bool = Field(False, description="Whether the steps ran on Spot machines: their price is a range.")
