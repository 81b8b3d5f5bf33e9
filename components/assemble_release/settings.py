"""Settings of assemble_release."""

from pydantic import Field

from components.core.settings import Section


class AssembleReleaseSettings(Section):
    """What people should know about the models, for the model card."""

    intended_use: str = Field(
        "Classify photographs that resemble the training images into the labels below, on a server or on a phone.",
        description="Model card: what the models are for.",
    )
    out_of_scope: str = Field(
        "Images of anything else still get one of the labels: the models can't say that none fits. "
        "Decisions about people or safety must not rest on them.",
        description="Model card: what the models must not be used for.",
    )
    owners: str = Field("", description="Model card: who answers questions about the models.")
