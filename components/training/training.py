"""What a training left behind: `training.json` beside the model. Free of TensorFlow, so that every later step can read it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from components.core.examples import read_model
from components.core.preprocessing import Preprocessing

TRAINING = "training.json"
MOBILE_MODEL = "model.keras"
CLOUD_MODEL = "saved_model"
Phase = Literal["head", "fine_tune", "scratch"]


class WeightsUsed(BaseModel):
    """Which weights the backbone started from."""

    asked: str
    used: Literal["imagenet", "file", "none"]
    note: str = ""
    """One sentence for the report if something else than what was asked for was used; else empty."""
    sha256: str = ""
    """Digest of the weights' file, where a path was given."""


class Epoch(BaseModel):
    """One epoch's averages. `loss` is what was minimised (smoothed, weighted); the validation figures are plain."""

    phase: Phase
    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float = 0.0


class Training(BaseModel):
    """The content of training.json."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["dual.training/v1"] = Field(default="dual.training/v1", alias="schema")
    kind: Literal["cloud", "mobile"]
    backbone: str
    weights: WeightsUsed
    preprocessing: Preprocessing
    labels: list[str]
    seed: int
    examples_digest: str
    parameters: int
    """Weights in the network, learned or frozen."""
    epochs: dict[Phase, int]
    """Epochs that ran in each phase."""
    history: list[Epoch]
    validation: dict[str, float]
    """Plain float figures of the finished network on the validation split: accuracy, loss (cross-entropy in nats)."""
    precision: str
    replicas: int
    seconds: dict[str, float]
    """Wall-clock seconds of each part of this training, without what a resumed run found done. Parts may overlap: the network is made
    ready for the features while images are decoded."""
    settings: dict[str, Any]


def read_training(root: Path) -> Training:
    """Load `<root>/training.json`; `DataError` if it is missing or malformed."""
    return read_model(Training, root / TRAINING, "Run the training step again")


def write_training(root: Path, training: Training) -> None:
    """Write `<root>/training.json`, whole or not at all."""
    temporary = root / f".{TRAINING}.part"
    temporary.write_text(training.model_dump_json(by_alias=True, indent=1))
    temporary.replace(root / TRAINING)


def epochs_per_phase(history: list[Epoch]) -> dict[Phase, int]:
    """How many epochs each phase ran."""
    counts: dict[Phase, int] = {}
    for epoch in history:
        counts[epoch.phase] = counts.get(epoch.phase, 0) + 1
    return counts


def class_weights(mode: Literal["auto", "balanced", "none"], per_class: Mapping[str, int]) -> list[float]:
    """A weight per class, in the mapping's order: n / (classes · n_c) when balancing, so that they average 1 over examples.

    `auto` balances if the largest class has at least 1.5 times the images of the smallest; a class without images gets 0.
    """
    counts = list(per_class.values())
    present = [count for count in counts if count]
    skewed = bool(present) and max(present) >= 1.5 * min(present)
    if mode == "none" or (mode == "auto" and not skewed):
        return [1.0] * len(counts)
    return [sum(counts) / (len(present) * count) if count else 0.0 for count in counts]
