"""Settings of the report."""

from pydantic import Field

from components.core.settings import Section


class ReportSettings(Section):
    """What the report computes beside what the steps recorded."""

    price_per_hour: float = Field(
        0.067,
        ge=0,
        description="Price of one hour of the machine that runs the steps, for the cost column. The default is Google Cloud's list "
        "price of an e2-standard-2 (2 vCPU, 8 GB, us-central1, on demand, 2025); set your own.",
    )
    currency: str = Field("USD", max_length=8, description="Currency of the price.")
