"""The evaluation artifact: `evaluation.json` and `predictions.npz`, written by evaluate_*, read by all that judge."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from components.core.errors import DataError
from components.core.examples import Split, read_model
from components.core.gate import Verdict

MANIFEST = "evaluation.json"
PREDICTIONS = "predictions.npz"
_FIX = "Run the evaluation step again"
_ROUNDING = 1e-6

ModelKind = Literal["cloud", "mobile"]


class CalibrationBin(BaseModel):
    """One bar of the reliability diagram: the examples whose confidence lies in (low, high]."""

    low: float
    high: float
    examples: int
    confidence: float
    """Mean confidence of the bin's examples; the middle of the bin if it has none."""
    accuracy: float
    """Share of the bin's examples that are right; 0 if it has none."""


class BaselineComparison(BaseModel):
    """What the candidate was compared with, and how it came out."""

    release: str = ""
    """Release id; empty if nothing was promoted before."""
    how: Literal["none", "recorded", "evaluated", "reset", "failed"] = "none"
    """No baseline yet; its recorded metrics (same examples); evaluated again on today's examples; ignored on request; not to be had."""
    text: str = ""
    metrics: dict[str, float] = {}
    slices: dict[str, dict[str, float]] = {}
    changes: dict[str, tuple[float, float, float]] = {}
    """Metric → (candidate - baseline, low, high): a paired bootstrap 95 % interval; only where the baseline was evaluated again."""


class Evaluation(BaseModel):
    """The content of evaluation.json. Metrics that are undefined (no example, no prediction) are left out."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["dual.evaluation/v1"] = Field(default="dual.evaluation/v1", alias="schema")
    model: ModelKind
    split: Split
    examples: int
    labels: list[str]
    examples_digest: str
    metrics: dict[str, float]
    """accuracy, precision/<label>, recall/<label>, f1/<label>, macro_f1, expected_calibration_error, log_loss."""
    intervals: dict[str, tuple[float, float]]
    """Bootstrap 95 % intervals of the metrics."""
    confusion: list[list[int]]
    """[true][predicted] → examples."""
    slices: dict[str, dict[str, float]]
    """`column=value` → its metrics and `examples`."""
    calibration: list[CalibrationBin] = []
    baseline: BaselineComparison = BaselineComparison()
    verdict: Verdict


@dataclass(frozen=True)
class Predictions:
    """A model's answers on a split, in the order of the examples."""

    keys: NDArray[np.str_]
    labels: NDArray[np.int64]
    """True classes [N]."""
    probabilities: NDArray[np.float32]
    """[N, C] in the order of the labels."""

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.keys)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The most probable class of each example [N]; the first one of equals."""
        return np.argmax(self.probabilities, axis=1).astype(np.int64)

    @property
    def scores(self) -> NDArray[np.float64]:
        """The probability of the predicted class [N]."""
        return self.probabilities.max(axis=1).astype(np.float64)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the predicted class is the true one [N]."""
        return self.predicted == self.labels

    def valid(self) -> NDArray[np.bool_]:
        """Whether an answer is made of probabilities [N]: no NaN, no infinity, nothing below 0 or above 1."""
        with np.errstate(invalid="ignore"):
            possible = (self.probabilities >= -_ROUNDING) & (self.probabilities <= 1 + _ROUNDING)
        return np.asarray(possible.all(axis=1))

    def invalid(self) -> int:
        """How many answers are not valid."""
        return int((~self.valid()).sum())


def write_evaluation(root: Path, evaluation: Evaluation, predictions: Predictions) -> None:
    """Write both files; evaluation.json last, so that an evaluation exists when it does."""
    buffer = io.BytesIO()
    np.savez(buffer, keys=predictions.keys, labels=predictions.labels, probabilities=predictions.probabilities)
    root.mkdir(parents=True, exist_ok=True)
    write_whole(root / PREDICTIONS, buffer.getvalue())
    write_whole(root / MANIFEST, evaluation.model_dump_json(by_alias=True, indent=1).encode())


def read_evaluation(root: Path) -> Evaluation:
    """Load `<root>/evaluation.json`; `DataError` if it is missing or malformed."""
    return read_model(Evaluation, root / MANIFEST, _FIX)


def read_predictions(root: Path) -> Predictions:
    """Load `<root>/predictions.npz`; `DataError` if it is missing, damaged, or its arrays don't fit each other."""
    path = root / PREDICTIONS
    try:
        with np.load(path, allow_pickle=False) as arrays:
            keys, labels, probabilities = arrays["keys"], arrays["labels"], arrays["probabilities"]
    except FileNotFoundError:
        raise DataError("the file is missing", where=str(path), fix=_FIX) from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"is no predictions file ({error})", where=str(path), fix=_FIX) from None
    if probabilities.ndim != 2 or not len(keys) == len(labels) == len(probabilities):
        shapes = f"keys {keys.shape}, labels {labels.shape}, probabilities {probabilities.shape}"
        raise DataError(f"the arrays don't fit each other: {shapes}", where=str(path), fix=_FIX)
    return Predictions(keys, labels.astype(np.int64), probabilities.astype(np.float32))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees all of it or none."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(data)
    temporary.replace(path)
