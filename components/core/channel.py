"""The channel: which release is current. The only mutable contract object, changed by compare-and-swap.

It names the pair: the cloud half that servers follow and the mobile half that devices read, always together. What it says
went through `history/<sequence>.json` first; the swap of the channel is the commit point of a publication and of an undo.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from components.core.errors import DataError
from components.core.preprocessing import Preprocessing
from components.core.stores import Store, join

STABLE = "stable"


class TensorContract(BaseModel):
    """One tensor of the .tflite as an app sees it."""

    model_config = ConfigDict(frozen=True)

    shape: list[int]
    dtype: Literal["uint8"] = "uint8"
    scale: float
    """real value = scale · (stored value - zero_point)."""
    zero_point: int = 0


class MobileContract(BaseModel):
    """What an app needs to call the model: RGB pixels in, one probability per label out."""

    model_config = ConfigDict(frozen=True)

    preprocessing: Preprocessing
    input: TensorContract
    output: TensorContract


def mobile_contract(preprocessing: Preprocessing, labels: int) -> MobileContract:
    """The fixed contract of DESIGN.md: uint8 [1, H, W, 3] in 0–255, uint8 [1, `labels`] probabilities in 1/256, batch 1."""
    shape = [1, preprocessing.height, preprocessing.width, preprocessing.channels]
    pixels = TensorContract(shape=shape, scale=1.0)
    return MobileContract(preprocessing=preprocessing, input=pixels, output=TensorContract(shape=[1, labels], scale=1 / 256))


class CloudPointer(BaseModel):
    """The cloud half: TF Serving's version number and the SavedModel's folder in the store."""

    version: int
    path: str


class MobilePointer(BaseModel):
    """The mobile half: the content-addressed blob in the store, and what an app must know to use it."""

    blob: str
    sha256: str
    size: int
    contract: MobileContract
    labels: list[str]
    labels_digest: str


class Channel(BaseModel):
    """The content of channels/<channel>.json."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["dual.channel/v1"] = Field(default="dual.channel/v1", alias="schema")
    channel: str
    sequence: int = Field(ge=1)
    """Grows with every publication and undo; a client refuses a smaller one than it has seen."""
    release: str
    previous: str = ""
    """Where an undo goes: the release that was current before this one was published; empty for the first."""
    cloud: CloudPointer
    mobile: MobilePointer
    policy: dict[str, JsonValue]
    published: str
    """UTC, ISO 8601."""

    def to_json(self) -> bytes:
        """The bytes of the manifest."""
        return self.model_dump_json(by_alias=True, indent=1).encode()


def channel_name(channel: str = STABLE) -> str:
    """Where a channel lies in the store."""
    return join("channels", f"{channel}.json")


def read_channel(store: Store, channel: str = STABLE) -> tuple[Channel, str] | None:
    """The channel and the generation it was read under (for `Store.swap`); None before the first publication.

    Raises `DataError` if the manifest is malformed.
    """
    name = channel_name(channel)
    found = store.find(name)
    if found is None:
        return None
    try:
        return Channel.model_validate_json(found.data), found.generation
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        fix = "Delete the file and publish again: the sequence continues from the history"
        raise DataError(what, where=f"{store.uri}/{name}", fix=fix) from None
