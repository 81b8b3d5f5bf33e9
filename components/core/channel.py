"""The channel: which release is current. The only mutable contract object, changed by compare-and-swap.

It names the pair: the cloud half that servers follow and the mobile half that devices read, always together. What it says
went through `history/<sequence>.json` first; the swap of the channel is the commit point of a publication and of an undo.

The file is a signed envelope around the manifest (`components.core.envelope`); docs/channel-spec.md says it for app developers. Servers and
publishers read it from the store that they trust with everything else, devices verify it (`serving.client`).
"""

import json
import re
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from components.core.envelope import Envelope, parse_envelope
from components.core.errors import DataError, UsageError
from components.core.preprocessing import Preprocessing
from components.core.staging import EVERYONE, Staging
from components.core.stores import Store, join

STABLE = "stable"
"""The channel of the pair: servers follow it. Any other is for devices alone (docs/decisions/0013)."""
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
UNSIGNED_V1 = "dual.channel/v1"
"""The manifest of the first versions: without envelope, staging and self-test. Publishers read it and write the present one."""
_DIGEST = r"^[0-9a-f]{64}$"


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


class BlobPointer(BaseModel):
    """A content-addressed file: where it lies below the store's address, and what it must be."""

    blob: str
    sha256: str = Field(pattern=_DIGEST)
    size: int = Field(ge=0)


class MobilePointer(BlobPointer):
    """The mobile half: the .tflite, and what an app must know to use it."""

    contract: MobileContract
    labels: list[str]
    labels_digest: str
    minimum_runtime: str = Field(default="", pattern=r"^(\d+\.\d+\.\d+)?$")
    """The TFLite version (what `TfLiteVersion()` returns) that all its operations need, as the converter wrote it; empty: not known."""
    selftest: BlobPointer | None = None
    """A few pictures with the answers that this model must give ("dual.selftest/v1"); None: there are none."""


class Fallback(BaseModel):
    """What installations outside of the staged percentage use: the mobile half that everybody had before."""

    release: str
    mobile: MobilePointer
    policy: dict[str, JsonValue]


class Channel(BaseModel):
    """The manifest: what the payload of channels/<channel>.json says."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["dual.channel/v1", "dual.channel/v2"] = Field(default="dual.channel/v2", alias="schema")
    channel: str
    model: str = ""
    """Name of the served model: a manifest of another app's model is refused."""
    sequence: int = Field(ge=1, le=(1 << 53) - 1)
    """Grows with every publication, undo and change of the percentage; a client refuses a smaller one than it has seen."""
    release: str
    previous: str = ""
    """Where an undo goes: the release that was current before this one was published; empty for the first."""
    cloud: CloudPointer
    """What all servers follow, whatever the percentage; in another channel than `stable`, what they followed when it was published."""
    mobile: MobilePointer
    policy: dict[str, JsonValue]
    """The layered policy of `mobile`."""
    staging: Staging = EVERYONE
    """Which installations use `mobile`; the others use `fallback`."""
    fallback: Fallback | None = None
    published: str
    """UTC, ISO 8601. For people: devices compare sequences, never times."""

    def to_json(self) -> bytes:
        """The bytes of the manifest."""
        return self.model_dump_json(by_alias=True, indent=1).encode()


@dataclass(frozen=True)
class StoredChannel:
    """A channel as it lies in the store."""

    channel: Channel
    envelope: Envelope | None
    """None: an unsigned manifest of the first version."""
    generation: str

    def is_signed(self) -> bool:
        """Whether it has any signature; says nothing of whose."""
        return self.envelope is not None and bool(self.envelope.signatures)


def channel_name(channel: str = STABLE) -> str:
    """Where a channel lies in the store; `UsageError` if that is no name for one."""
    if not _NAME.fullmatch(channel):
        fix = "Use at most 32 lowercase letters, digits and dashes, a letter first: stable, beta"
        raise UsageError(f"'{channel}' can't be the name of a channel", where="channel", fix=fix)
    return join("channels", f"{channel}.json")


def read_channel(store: Store, channel: str = STABLE) -> tuple[Channel, str] | None:
    """The channel and the generation it was read under (for `Store.swap`); None before the first publication.

    Raises `DataError` if the manifest is malformed. Signatures are not looked at.
    """
    found = read_stored_channel(store, channel)
    return (found.channel, found.generation) if found else None


def read_stored_channel(store: Store, channel: str = STABLE) -> StoredChannel | None:
    """The channel with its envelope, signatures unverified; None before the first publication, `DataError` if it is malformed."""
    name = channel_name(channel)
    found = store.find(name)
    if found is None:
        return None
    where = f"{store.uri}/{name}"
    envelope = None if _is_plain(found.data) else parse_envelope(found.data, where)
    manifest = parse_manifest(envelope.body() if envelope else found.data, where)
    return StoredChannel(manifest, envelope, found.generation)


def parse_manifest(data: bytes, where: str) -> Channel:
    """The manifest in the bytes of a payload; `DataError` names the key that is wrong."""
    try:
        return Channel.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        fix = "Delete the file and publish again: the sequence continues from the history"
        raise DataError(what, where=where, fix=fix) from None


def _is_plain(data: bytes) -> bool:
    try:
        content = json.loads(data)
    except ValueError:
        return False
    return isinstance(content, dict) and content.get("schema") == UNSIGNED_V1
