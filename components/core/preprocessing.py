"""The preprocessing contract: what happens to an image between its bytes and a model's pixels. Defined once, here."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Preprocessing(BaseModel):
    """Decode (JPEG/PNG, three channels) → resize the whole image to `height`×`width` → round to uint8 RGB in [0, 255].

    Scaling to a network's own range happens inside both graphs, so that an app can't get it wrong.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: int = Field(ge=32, le=1024)
    width: int = Field(ge=32, le=1024)
    channels: Literal[3] = 3
    method: Literal["bilinear"] = "bilinear"
    antialias: bool = True
    aspect: Literal["stretch"] = "stretch"
    dtype: Literal["uint8"] = "uint8"
    range: tuple[int, int] = (0, 255)
