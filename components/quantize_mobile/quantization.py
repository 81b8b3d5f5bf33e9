"""What quantize_mobile left behind: `quantization.json` beside the model. Free of TensorFlow, so that every later step can read it."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from components.core.examples import read_model
from components.core.gate import Verdict
from components.core.preprocessing import Preprocessing
from components.quantize_mobile.settings import RungName

QUANTIZATION = "quantization.json"
QUANTIZED_MODEL = "model.tflite"
FLOAT_MODEL = "float.tflite"


class FloatReference(BaseModel):
    """The float32 .tflite that everything is compared with."""

    accuracy: float
    size_bytes: int
    latency_ms: float


class LayerError(BaseModel):
    """How far one tensor of the shipped model's int8 arithmetic is from the same tensor in floats."""

    tensor: str
    kind: str
    range: tuple[float, float]
    """What its 256 codes stand for."""
    own_error_in_steps: float
    """Root mean square error that the layer adds itself, in steps of its codes; plain rounding has 0.289."""
    own_signal_to_noise_db: float
    """Signal over what the layer adds itself, in decibels."""
    signal_to_noise_db: float
    """Signal over all noise that has come together up to here, in decibels."""


class Rung(BaseModel):
    """One method of the ladder and how its model did, measured by the LiteRT interpreter at one thread."""

    rung: RungName
    method: str
    """One sentence: what was done."""
    failed: str = ""
    """Why there is no usable model; the figures are then meaningless."""
    full_int8: bool = False
    accuracy: float = 0.0
    drop: float = 1.0
    """Accuracy of the float model minus this one's, on the same images."""
    drop_interval: tuple[float, float] = (0.0, 1.0)
    """Paired 95 % interval of the drop."""
    agreement: float = 0.0
    """Share of images on which both models answer the same class."""
    size_bytes: int = 0
    compressed_bytes: int = 0
    """As a download that is compressed on its way: gzip, level 9."""
    latency_ms: float = 0.0
    """Median of single predictions."""
    operations: dict[str, int] = {}
    float_operations: dict[str, int] = {}
    seconds: float = 0.0
    """Making and measuring."""
    verdict: Verdict


class Quantization(BaseModel):
    """The content of quantization.json."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["dual.quantization/v1"] = Field(default="dual.quantization/v1", alias="schema")
    method: str
    """The rung that model.tflite came from."""
    full_int8: bool
    accuracy: float
    drop: float
    drop_interval: tuple[float, float]
    agreement: float
    size_bytes: int
    latency_ms: float
    float_reference: FloatReference
    rungs: list[Rung]
    layers: list[LayerError] = []
    """Of the shipped model, in order of execution; empty where its ranges are not known."""
    split: str
    examples: int
    """Images that the rungs were measured on."""
    preprocessing: Preprocessing
    labels: list[str]
    verdict: Verdict


def read_quantization(root: Path) -> Quantization:
    """Load `<root>/quantization.json`; `DataError` if it is missing or malformed."""
    return read_model(Quantization, root / QUANTIZATION, "Run quantize_mobile again")


def write_quantization(root: Path, quantization: Quantization) -> None:
    """Write `<root>/quantization.json`, whole or not at all."""
    temporary = root / f".{QUANTIZATION}.part"
    temporary.write_text(quantization.model_dump_json(by_alias=True, indent=1))
    temporary.replace(root / QUANTIZATION)
