"""Settings of the drawn flowers (`--data drawn`)."""

from pydantic import Field

from components.core.settings import Section


class DrawnSettings(Section):
    """What the embedded generator draws; same settings, same bytes."""

    images_per_class: int = Field(default=200, ge=1, le=100_000, description="How many pictures of each of the five flowers.")
    size: int = Field(default=128, ge=32, le=1024, description="Side of a picture in pixels.")
    difficulty: float = Field(
        default=0.5, ge=0, le=1, description="0 plain … 1 hard: overlap of colours, clutter, scale, blur, light, noise and occlusion."
    )
    seed: int = Field(default=1, ge=0, description="Same seed, same pictures.")
