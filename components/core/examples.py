"""The examples artifact: sharded TFRecords and `examples.json` beside them.

Layout: `<root>/<split>/shard-00000-of-00004.tfrecord` for the splits train, validation and test. Each record is a tf.train.Example:
image/encoded (JPEG or PNG bytes, upright RGB), image/format ("jpeg"|"png"), image/height, image/width, image/label (int64 index
into `labels`), image/class/text, image/key (unique, stable: the path below its source), image/sha256 (of image/encoded),
image/slices (JSON object column → value).
"""

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.core.digest import sha256_json
from components.core.errors import DataError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, Split, Split] = ("train", "validation", "test")
MANIFEST = "examples.json"
Model = TypeVar("Model", bound=BaseModel)


class SplitExamples(BaseModel):
    """One split: its shard files (relative) and how many examples each class has."""

    shards: list[str]
    count: int
    per_class: dict[str, int]


class Examples(BaseModel):
    """The content of examples.json."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["dual.examples/v1"] = Field(default="dual.examples/v1", alias="schema")
    labels: list[str]
    """Class names; the index is the label. Sorted once at ingest and never reordered."""
    digest: str
    """SHA-256 over the sorted (split, key, label, sha256, slices) of all examples: content, not order, time or sharding."""
    splits: dict[Split, SplitExamples]
    slice_columns: list[str] = []
    spans: list[str] = []
    source: str = ""
    drawn: bool = False
    """True if the images are drawn by the embedded generator: every report says so."""
    problems: dict[str, int] = {}
    """What ingest fixed or skipped, by kind."""

    def labels_digest(self) -> str:
        """Digest of the labels in their order."""
        return labels_digest(self.labels)

    def shard_paths(self, root: Path, split: Split) -> list[str]:
        """The split's shard files below `root`, in order."""
        return [str(root / name) for name in self.splits[split].shards]


def labels_digest(labels: list[str]) -> str:
    """Digest of class names in their order: the same in the SavedModel, the .tflite and release.json."""
    return sha256_json(labels)


def read_examples(root: Path) -> Examples:
    """Load `<root>/examples.json`; `DataError` if it is missing or malformed."""
    return read_model(Examples, root / MANIFEST, "Run the ingest step again")


def read_model(model: type[Model], path: Path, fix: str) -> Model:
    """Parse a JSON file as `model`; `DataError` names the file and the first thing that is wrong."""
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise DataError("the file is missing", where=str(path), fix=fix) from None
    except ValidationError as error:
        first: Any = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{key}: {first['msg']}", where=str(path), fix=fix) from None
