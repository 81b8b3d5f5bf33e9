"""The .tflite of quantize_mobile, evaluated by the LiteRT interpreter on pixels made as an app makes them."""

from pathlib import Path

from pydantic import BaseModel

from components.core.digest import sha256_file
from components.core.errors import DataError
from components.core.examples import read_model
from components.core.preprocessing import Preprocessing
from components.core.record import StepRecord
from components.core.release import MOBILE_FILE, Release
from components.core.settings import section, value
from components.core.shards import Shard
from components.core.stores import Store, join
from components.evaluation.evaluate import evaluate
from components.evaluation.evaluation import Evaluation
from components.evaluation.models import MobileModel
from components.evaluation.pieces import ask_shard
from components.evaluation.settings import EvaluateSettings
from components.evaluation.subject import Subject


class _Quantization(BaseModel):
    """quantization.json, as far as an evaluation needs it."""

    preprocessing: Preprocessing


def evaluate_mobile_model(record: StepRecord, *, examples: Path, model: Path, settings: str, output: Path, shards: int = 1) -> Evaluation:
    """Evaluate the artifact of quantize_mobile in `model` on `examples`; the evaluation artifact lands in `output`.

    The gate's verdict is in the evaluation, not an error. Raises `DataError` if the model can't be loaded or has other labels.
    """
    own, subject = section(settings, "evaluate_mobile", EvaluateSettings), _subject(model)
    seed = int(value(settings, "seed", 1))
    return evaluate(record, subject, settings=own, seed=seed, examples=examples, output=output, shards=shards)


def ask_mobile_shard(record: StepRecord, shard: Shard, *, examples: Path, model: Path, settings: str) -> None:
    """Leave the answers to a part of the split in the store for `evaluate_mobile_model`; raises the same."""
    own = section(settings, "evaluate_mobile", EvaluateSettings)
    ask_shard(record, "evaluate_mobile", _subject(model), settings=own, examples=examples, shard=shard)


def open_released(store: Store, release: Release, folder: Path) -> MobileModel:
    """Fetch a release's .tflite into `folder`, checked by its digest, and load it."""
    path, name = folder / MOBILE_FILE, join(release.folder(), release.models.mobile.path, MOBILE_FILE)
    store.get_file(name, path)
    if sha256_file(path) != release.mobile_file().sha256:
        raise DataError("the file was changed after its release", where=f"{store.uri}/{name}", fix="Look with: dual release verify")
    return MobileModel(path, release.preprocessing.mobile)


def _subject(model: Path) -> Subject:
    files, contract = model / MOBILE_FILE, read_model(_Quantization, model / "quantization.json", "Run quantize_mobile again").preprocessing
    return Subject("mobile", MobileModel(files, contract), open_released, files)
