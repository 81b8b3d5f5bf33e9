"""The SavedModel of train_cloud, evaluated by its serving signature: encoded images in, as a server gets them."""

from pathlib import Path

from components.core.record import StepRecord
from components.core.release import Release, stage_cloud
from components.core.settings import section, value
from components.core.shards import Shard
from components.core.stores import Store
from components.evaluation.evaluate import evaluate
from components.evaluation.evaluation import Evaluation
from components.evaluation.models import CloudModel
from components.evaluation.pieces import ask_shard
from components.evaluation.settings import EvaluateSettings
from components.evaluation.subject import Subject
from components.training.training import CLOUD_MODEL, read_training


def evaluate_cloud_model(record: StepRecord, *, examples: Path, model: Path, settings: str, output: Path, shards: int = 1) -> Evaluation:
    """Evaluate the artifact of train_cloud in `model` on `examples`; the evaluation artifact lands in `output`.

    The gate's verdict is in the evaluation, not an error. Raises `DataError` if the model can't be loaded or has other labels.
    """
    own, subject = section(settings, "evaluate_cloud", EvaluateSettings), _subject(model)
    seed = int(value(settings, "seed", 1))
    return evaluate(record, subject, settings=own, seed=seed, examples=examples, output=output, shards=shards)


def ask_cloud_shard(record: StepRecord, shard: Shard, *, examples: Path, model: Path, settings: str) -> None:
    """Leave the answers to a part of the split in the store for `evaluate_cloud_model`; raises the same."""
    own = section(settings, "evaluate_cloud", EvaluateSettings)
    ask_shard(record, "evaluate_cloud", _subject(model), settings=own, examples=examples, shard=shard)


def open_released(store: Store, release: Release, folder: Path) -> CloudModel:
    """Fetch a release's SavedModel below `folder`, checked file by file, and load it."""
    version = stage_cloud(store, release.id, folder)
    return CloudModel(folder / str(version), release.labels)


def _subject(model: Path) -> Subject:
    files = model / CLOUD_MODEL
    return Subject("cloud", CloudModel(files, read_training(model).labels), open_released, files)
