"""Settings of publish_mobile."""

from typing import Literal

from pydantic import Field

from components.core.settings import Section


class PublishMobileSettings(Section):
    """What devices accept, who signs, and how many devices take a new model at first."""

    max_megabytes: float = Field(
        40.0, gt=0, description="A larger .tflite is refused before anything is written (hosts of on-device models accept about 40 MB)."
    )
    percent: float = Field(
        100.0,
        ge=0,
        le=100,
        description="Share of the devices that take a new model at first; `dual publish widen` goes on. The cloud half is everybody's.",
    )
    signing: Literal["auto", "required", "unsigned"] = Field(
        "auto",
        description="auto: keys given or made by you, else (stores in a local folder) a key made by itself, else an error; required: "
        "keys given or made by you, else an error; unsigned: nobody signs, and devices refuse the channel unless told otherwise.",
    )
    key_files: tuple[str, ...] = Field(
        (),
        description="PEM files of private signing keys (paths of mounted secrets), or gcpkms://projects/… key versions. Also by the "
        "variables DUAL_SIGNING_KEY_FILE and DUAL_SIGNING_KEY. Keys themselves are never a setting.",
    )
