"""Settings of quantize_mobile."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from components.core.settings import Section

RungName = Literal["ptq", "clipped", "corrected", "equalised", "qat", "selective_float", "dynamic_range"]
FALLBACKS: tuple[RungName, ...] = ("selective_float", "dynamic_range")
"""Last resorts: not full int8, tried and blessed only where a setting allows them by name."""


class RangeSettings(Section):
    """The ranges of activations that the second and the third rung choose themselves."""

    images: int = Field(default=200, ge=1, description="Training images, balanced over the classes, that the ranges are measured on.")
    clip: Literal["none", "mse", "percentile"] = Field(
        default="mse", description="Keep all values that were seen, clip where the squared error is least, or at `percentile`."
    )
    percentile: float = Field(default=99.99, gt=50, le=100, description="Share of the values below the upper clipping point, in percent.")


class QatSettings(Section):
    """Short quantization-aware fine-tuning: the third rung."""

    epochs: int = Field(default=4, ge=1, le=1000, description="Epochs over the training split.")
    learning_rate: float = Field(default=0.0001, gt=0, le=1, description="Adam's first learning rate; falls to zero by a cosine.")
    batch_size: int = Field(default=32, ge=1, le=4096, description="Images per step.")
    distillation: float = Field(
        default=0.9, ge=0, le=1, description="Share of the loss that follows the float model's probabilities, not the labels."
    )
    temperature: float = Field(
        default=1.0, gt=0, le=100, description="Softens both sides of that share; above 1, small probabilities count."
    )
    learn_ranges: bool = Field(default=False, description="Train the activations' ranges with the weights.")
    averaging: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Decay per step of a moving average of the weights that is kept in their place; 0 keeps the last.",
    )
    sparsity: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the weights of convolutions and dense layers that training makes 0; compresses well."
    )
    clusters: int = Field(
        default=0, ge=0, le=255, description="Number of values that a layer's weights may have (3 or more; 0: all codes); compresses well."
    )

    @field_validator("clusters")
    @classmethod
    def _enough(cls, value: int) -> int:
        if 0 < value < 3:
            raise ValueError("clusters must be 0 or at least 3")
        return value


class QuantizeSettings(Section):
    """What quantize_mobile tries, and what it accepts."""

    rungs: list[RungName] = Field(
        default=["ptq", "clipped", "corrected", "equalised", "qat", *FALLBACKS],
        min_length=1,
        description="Methods in the order in which they are tried, cheapest first.",
    )
    measure_all: bool = Field(default=False, description="Try every rung, also after one was good enough.")
    max_drop: float = Field(
        default=0.03, ge=0, le=1, description="Gate: most accuracy that int8 may lose against float on the validation split."
    )
    enough_drop: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="A rung that meets the gate and loses at most this is taken at once; above it, dearer ones are tried.",
    )
    min_accuracy: float = Field(default=0.0, ge=0, le=1, description="Gate: least accuracy of the quantized model on the validation split.")
    max_megabytes: float = Field(default=20.0, gt=0, description="Gate: largest .tflite.")
    allow_dynamic_range: bool = Field(
        default=False, description="Whether a model with int8 weights but float arithmetic may be blessed when no int8 rung meets the gate."
    )
    allow_selective_float: bool = Field(default=False, description="Likewise an int8 model whose worst layers compute in floats.")
    float_layers: int = Field(default=5, ge=1, description="How many of the worst layers the rung `selective_float` leaves in floats.")
    hard_swish: Literal["operation", "arithmetic"] = Field(
        default="arithmetic",
        description="How int8 models spell hard-swish: TFLite's own operation (smaller; LiteRT runs it outside its fast int8 kernels), "
        "or as an addition and a multiplication (about 8 % larger, faster on CPUs).",
    )
    calibration_sizes: list[int] = Field(
        default=[100, 300],
        min_length=1,
        description="Numbers of representative images that the first rung tries; the most accurate is kept.",
    )
    ranges: RangeSettings = RangeSettings()
    qat: QatSettings = QatSettings()
    measured_images: int = Field(default=2000, ge=1, description="Most validation images that a rung is measured on.")
    latency_runs: int = Field(default=50, ge=1, le=10_000, description="Single predictions that the latency is the median of.")

    def allows(self, rung: RungName) -> bool:
        """Whether a rung may be blessed although it is not full int8."""
        return rung in FALLBACKS and bool(getattr(self, f"allow_{rung}"))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.rungs)) < len(self.rungs):
            raise ValueError("each rung may be named once")
        if min(self.calibration_sizes) < 1:
            raise ValueError("calibration_sizes must be positive")
        return self
