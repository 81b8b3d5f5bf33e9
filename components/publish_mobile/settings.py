"""Settings of publish_mobile."""

from pydantic import Field

from components.core.settings import Section


class PublishMobileSettings(Section):
    """What devices accept."""

    max_megabytes: float = Field(
        40.0, gt=0, description="A larger .tflite is refused before anything is written (hosts of on-device models accept about 40 MB)."
    )
