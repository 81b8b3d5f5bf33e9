"""Settings of publish_mobile."""

from typing import Literal

from pydantic import Field

from components.core.settings import Section


class FirebaseMlSettings(Section):
    """Firebase ML, until it is shut down on 2027-06-15; needs the extra `firebase`."""

    project: str = Field("", description="Firebase project; empty: nothing is hosted there.")
    name: str = Field("classifier", description="Display name of the hosted model: a letter, then at most 31 letters, digits, underscores.")


class RemoteConfigSettings(Section):
    """A Remote Config parameter that tells apps of a new sequence at once."""

    project: str = Field("", description="Firebase project; empty: no parameter is written.")
    parameter: str = Field("dual_channel", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,255}$", description="Name of the parameter.")


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
        description="auto: keys given or made by you, else (stores in a local folder) a key made by itself, else nobody, with a warning, "
        "while the channel was never signed; required: keys given or made by you, else an error; unsigned: nobody signs. Devices refuse "
        "a channel that nobody signed, unless told otherwise; `dual publish sign` signs it later.",
    )
    key_files: tuple[str, ...] = Field(
        (),
        description="PEM files of private signing keys (paths of mounted secrets), or gcpkms://projects/… key versions. Also by the "
        "variables DUAL_SIGNING_KEY_FILE and DUAL_SIGNING_KEY. Keys themselves are never a setting.",
    )
    firebase_ml: FirebaseMlSettings = FirebaseMlSettings.model_validate({})
    remote_config: RemoteConfigSettings = RemoteConfigSettings.model_validate({})
