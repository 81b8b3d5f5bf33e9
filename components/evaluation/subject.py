"""What is evaluated, and on what."""

from dataclasses import dataclass
from pathlib import Path

from components.core.digest import sha256_file, sha256_tree
from components.core.errors import DataError
from components.core.examples import Examples
from components.evaluation.baseline import OpenReleased
from components.evaluation.evaluation import ModelKind
from components.evaluation.image_model import ImageModel
from components.evaluation.settings import EvaluateSettings


@dataclass(frozen=True)
class Subject:
    """The candidate, and how to open its counterpart in a release."""

    kind: ModelKind
    model: ImageModel
    open_released: OpenReleased
    files: Path
    """The file or folder that it was loaded from."""

    def digest(self) -> str:
        """SHA-256 of what it was loaded from."""
        return sha256_tree(self.files) if self.files.is_dir() else sha256_file(self.files)


@dataclass(frozen=True)
class Ground:
    """The examples, and how they are measured."""

    root: Path
    examples: Examples
    settings: EvaluateSettings
    seed: int
    shards: int = 1
    """Over how many pods the questions were shared out."""


def check_labels(model: ImageModel, examples: Examples) -> None:
    """Raise `DataError` if the model answers other classes than the examples have, or in another order."""
    if model.labels != examples.labels:
        what = f"the model answers {model.labels}, the examples are labelled {examples.labels}: other classes, or another order"
        raise DataError(what, fix="Train the model on these examples")
