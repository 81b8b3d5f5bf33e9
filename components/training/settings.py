"""Settings of the two training steps: one model for both, with the defaults of each side in a subclass."""

from typing import Literal

from pydantic import Field, field_validator

from components.core.settings import Section
from components.training.distributed.settings import WorkersSettings

MOBILE_BACKBONES = ("MobileNetV3Small", "MobileNetV3Large", "MobileNetV3SmallMinimalistic", "MobileNetV3LargeMinimalistic")
"""What the int8 step can rebuild layer by layer; the minimalistic ones have neither squeeze-excite nor hard-swish."""

_OTHER_BACKBONES = """
ConvNeXtBase ConvNeXtLarge ConvNeXtSmall ConvNeXtTiny ConvNeXtXLarge DenseNet121 DenseNet169 DenseNet201 EfficientNetB0 EfficientNetB1
EfficientNetB2 EfficientNetB3 EfficientNetB4 EfficientNetB5 EfficientNetB6 EfficientNetB7 EfficientNetV2B0 EfficientNetV2B1
EfficientNetV2B2 EfficientNetV2B3 EfficientNetV2L EfficientNetV2M EfficientNetV2S InceptionResNetV2 InceptionV3 MobileNet MobileNetV2
NASNetLarge NASNetMobile ResNet101 ResNet101V2 ResNet152 ResNet152V2 ResNet50 ResNet50V2 VGG16 VGG19 Xception
"""
CLOUD_BACKBONES = (*sorted(_OTHER_BACKBONES.split()), *MOBILE_BACKBONES)
"""Every network of keras.applications, by name."""

BatchSize = Field(default=32, ge=1, le=4096, description="Images per step, over all devices together.")


class HeadSettings(Section):
    """The classification head, trained on the frozen backbone's features; seconds, whatever the backbone."""

    epochs: int = Field(default=60, ge=1, le=1000, description="Most epochs over the features.")
    learning_rate: float = Field(default=0.001, gt=0, le=1, description="Adam's first learning rate; falls to zero by a cosine.")
    batch_size: int = Field(default=64, ge=1, le=4096, description="Feature rows per step.")
    patience: int = Field(default=12, ge=1, description="Stop after this many epochs without a lower validation loss.")
    dropout: float = Field(default=0.3, ge=0, lt=1, description="Share of features that a training step leaves out.")
    weight_decay: float = Field(default=0.01, ge=0, le=1, description="Decoupled weight decay per unit of learning rate.")


class FineTuneSettings(Section):
    """Training the backbone's upper layers on, after the head; its batch normalisation stays in inference mode."""

    epochs: int = Field(default=0, ge=0, le=1000, description="Epochs; 0 leaves the backbone as it came.")
    layers: Literal["all"] | int = Field(default="all", description="How many of the backbone's last layers learn, or `all`.")
    learning_rate: float = Field(
        default=0.0003, gt=0, le=1, description="Adam's peak learning rate; warmed up, then falls to zero by a cosine."
    )
    batch_size: int = BatchSize
    patience: int = Field(default=3, ge=1, description="Stop after this many epochs without a lower validation loss.")

    @field_validator("layers")
    @classmethod
    def _positive(cls, value: str | int) -> str | int:
        if isinstance(value, int) and value < 1:
            raise ValueError("give at least 1 layer, or `all`")
        return value


class FromScratchSettings(Section):
    """Training everything, when there are no weights to start from."""

    epochs: int = Field(default=40, ge=1, le=10_000, description="Epochs.")
    image_size: int = Field(
        default=128, ge=32, le=1024, description="Side of the square input in pixels; small, since everything is trained."
    )
    learning_rate: float = Field(
        default=0.002, gt=0, le=1, description="Adam's peak learning rate; warmed up, then falls to zero by a cosine."
    )
    warmup: float = Field(default=0.1, ge=0, lt=1, description="Share of all steps in which the learning rate rises to its peak.")
    batch_size: int = BatchSize
    batch_norm_momentum: float = Field(
        default=0.9, gt=0, lt=1, description="Keras' MobileNetV3 has 0.999, which is too slow for short runs."
    )
    dropout: float = Field(default=0.2, ge=0, lt=1, description="Share of features that a training step leaves out before the head.")
    patience: int = Field(default=10, ge=1, description="Stop after this many epochs without a lower validation loss.")


class AugmentSettings(Section):
    """Random changes of training images; each draw depends on the seed, the epoch or view, and the position only."""

    views: int = Field(
        default=1, ge=0, le=64, description="Augmented views of each image whose features are cached for the head, beside the original."
    )
    flip: bool = Field(default=True, description="Mirror half of the images left to right.")
    min_crop: float = Field(default=0.7, gt=0, le=1, description="Smallest share of the area that a random crop keeps.")
    brightness: float = Field(default=0.15, ge=0, lt=1, description="Largest relative change of brightness.")
    contrast: float = Field(default=0.2, ge=0, lt=1, description="Largest relative change of contrast.")
    saturation: float = Field(default=0.25, ge=0, lt=1, description="Largest relative change of colour saturation.")


class TrainSettings(Section):
    """What both training steps can be told."""

    backbone: str = Field(default="MobileNetV3Small", description="Name of the network.")
    weights: str = Field(
        default="imagenet",
        min_length=1,
        description="`imagenet` (Keras' download and cache; from scratch where neither has them), `none`, or the path of an .h5 file.",
    )
    image_size: int = Field(default=224, ge=32, le=1024, description="Side of the square input in pixels, where weights were found.")
    head: HeadSettings = HeadSettings()
    fine_tune: FineTuneSettings = FineTuneSettings()
    workers: WorkersSettings = WorkersSettings()
    from_scratch: FromScratchSettings = FromScratchSettings()
    augment: AugmentSettings = AugmentSettings()
    class_weights: Literal["auto", "balanced", "none"] = Field(
        default="auto",
        description="Weigh classes by inverse frequency: always, never, or if the largest has 1.5 times the smallest's images.",
    )
    label_smoothing: float = Field(default=0.1, ge=0, lt=1, description="Share of each target spread over all classes.")
    mixed_precision: Literal["auto", "on", "off"] = Field(
        default="auto", description="16-bit arithmetic: `auto` uses it on GPUs that have it; `on` fails without one."
    )
    feature_batch: int = Field(
        default=32, ge=1, le=4096, description="Images per forward pass of the frozen backbone; with LiteRT, most images at once."
    )
    feature_engine: Literal["auto", "tensorflow", "litert"] = Field(
        default="auto",
        description="What runs the frozen backbone: `litert` computes in float32 on the CPU and is faster for some networks; `auto` "
        "uses it for those where there is no GPU.",
    )
    cache_megabytes: int = Field(
        default=2048, ge=0, description="Decoded pixels of a split up to this size stay in memory; more go to a file."
    )

    @field_validator("backbone")
    @classmethod
    def _known(cls, value: str) -> str:
        return _check_name(value, CLOUD_BACKBONES)


class CloudTrainSettings(TrainSettings):
    """Training of the cloud model."""

    backbone: str = Field(default="DenseNet121", description="Any network of keras.applications, by its name there.")
    from_scratch: FromScratchSettings = FromScratchSettings(epochs=5, image_size=96, learning_rate=0.001)


class TeacherSettings(Section):
    """Distillation: a cloud model that was released before teaches the mobile one, in every phase that trains the backbone."""

    release: str = Field(
        default="",
        description="Whose cloud model: `stable` (what is promoted; none, and a warning, before the first), a release id, or none.",
    )
    share: float = Field(default=0.5, ge=0, le=1, description="Share of the targets that are the teacher's probabilities, not the labels.")


class MobileTrainSettings(TrainSettings):
    """Training of the mobile model."""

    backbone: str = Field(default="MobileNetV3Small", description=f"One of {', '.join(MOBILE_BACKBONES)}.")
    fine_tune: FineTuneSettings = FineTuneSettings(epochs=3)
    teacher: TeacherSettings = TeacherSettings()

    @field_validator("backbone")
    @classmethod
    def _mobile(cls, value: str) -> str:
        return _check_name(value, MOBILE_BACKBONES)


def _check_name(name: str, known: tuple[str, ...]) -> str:
    if name in known:
        return name
    raise ValueError(f"'{name}' is none of {', '.join(known)}")
