"""Golden images: a few real ones with both models' expected answers, by which phones, servers and probes check themselves."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from components.core.errors import DataError
from components.core.examples import read_model
from components.core.release import PairPreprocessing
from components.core.stores import open_store
from components.evaluation.evaluation import Predictions

MANIFEST = "golden.json"
_STEPS = 256
_PNG = b"\x89PNG"


class CloudAnswer(BaseModel):
    """What the cloud model answers: probabilities in the order of the labels."""

    label: str
    probabilities: list[float]


class MobileAnswer(BaseModel):
    """What the mobile model answers: its own uint8 outputs, 256 times the probabilities."""

    label: str
    probabilities: list[int]


class GoldenImage(BaseModel):
    """One image, its pixels as the mobile model takes them, and the answers."""

    file: str
    """The encoded image, as the cloud model takes it."""
    pixels: str
    """A PNG of the mobile model's uint8 input: an app that resizes by itself compares with it."""
    label: str
    """The true class."""
    cloud: CloudAnswer
    mobile: MobileAnswer


class Tolerances(BaseModel):
    """How far an answer may be off: cloud in probability, mobile in steps of 1/256."""

    cloud: float
    mobile: int


class Golden(BaseModel):
    """The content of golden.json."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["dual.golden/v1"] = Field(default="dual.golden/v1", alias="schema")
    labels: list[str]
    preprocessing: PairPreprocessing
    tolerances: Tolerances
    images: list[GoldenImage]


def read_golden(folder: Path) -> Golden:
    """Load `<folder>/golden.json`; `DataError` if it is missing or malformed."""
    return read_model(Golden, folder / MANIFEST, "Run the step validate_infra again")


def choose_golden(cloud: Predictions, mobile: Predictions, classes: int, per_class: int) -> list[str]:
    """Keys of `per_class` examples of each class: those that both models get right first, and the cloud's least certain one last.

    The choice depends on the predictions alone (ties go by the key's digest). A class without examples has no golden image.
    """
    right = {str(key): bool(ok) for key, ok in zip(mobile.keys, mobile.correct, strict=True)}
    rows = {label: np.flatnonzero(cloud.labels == label) for label in range(classes)}
    return [key for label in range(classes) for key in _choose(cloud, rows[label], right, per_class)]


def _choose(cloud: Predictions, rows: NDArray[np.intp], mobile_right: Mapping[str, bool], count: int) -> list[str]:
    order = sorted(rows, key=lambda row: (_wrong(cloud, row, mobile_right), _digest(cloud.keys[row])))
    if count == 1 or len(order) <= 1:
        return [str(cloud.keys[row]) for row in order[:1]]
    uncertain = min(order, key=lambda row: cloud.scores[row])
    sure = [row for row in order if row != uncertain]
    return [str(cloud.keys[row]) for row in [*sure[: count - 1], uncertain]]


def _wrong(cloud: Predictions, row: np.intp, mobile_right: Mapping[str, bool]) -> int:
    return int(not cloud.correct[row]) + int(not mobile_right.get(str(cloud.keys[row]), False))


def _digest(key: Any) -> str:
    return hashlib.sha256(str(key).encode()).hexdigest()


def write_golden(
    folder: Path,
    keys: Sequence[str],
    images: Mapping[str, bytes],
    pixels: Mapping[str, NDArray[np.uint8]],
    *,
    labels: list[str],
    cloud: Predictions,
    mobile: Predictions,
    preprocessing: PairPreprocessing,
    tolerances: Tolerances,
) -> Golden:
    """Write the images, their pixels (PNG), and golden.json last.

    `images` are encoded bytes and `pixels` uint8 [H, W, 3] by key. Raises `DataError` for a key that one model was not evaluated on.
    """
    where = {name: {str(key): row for row, key in enumerate(side.keys)} for name, side in (("cloud", cloud), ("mobile", mobile))}
    store = open_store(str(folder))
    entries = []
    for number, key in enumerate(keys):
        if key not in where["mobile"]:
            raise DataError(f"the mobile model was not evaluated on '{key}'", where="evaluations", fix="Evaluate both on the same split")
        row, other = where["cloud"][key], where["mobile"][key]
        file, picture = _names(number, labels[cloud.labels[row]], images[key])
        store.put(file, images[key])
        store.put(picture, _encoded(pixels[key]))
        entries.append(
            GoldenImage(
                file=file,
                pixels=picture,
                label=labels[cloud.labels[row]],
                cloud=CloudAnswer(label=labels[cloud.predicted[row]], probabilities=[float(p) for p in cloud.probabilities[row]]),
                mobile=MobileAnswer(label=labels[mobile.predicted[other]], probabilities=_steps(mobile.probabilities[other])),
            )
        )
    golden = Golden(labels=labels, preprocessing=preprocessing, tolerances=tolerances, images=entries)
    store.put(MANIFEST, golden.model_dump_json(by_alias=True, indent=1).encode())
    return golden


def _names(number: int, label: str, image: bytes) -> tuple[str, str]:
    stem = f"{number:02}-{re.sub(r'[^A-Za-z0-9_-]+', '_', label)}"
    return (f"{stem}.png", f"{stem}-pixels.png") if image.startswith(_PNG) else (f"{stem}.jpg", f"{stem}.png")


def _encoded(pixels: NDArray[np.uint8]) -> bytes:
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _steps(probabilities: NDArray[np.float32]) -> list[int]:
    return [int(step) for step in np.clip(np.rint(probabilities * _STEPS), 0, _STEPS - 1)]
