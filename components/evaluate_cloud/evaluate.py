"""The SavedModel of train_cloud, evaluated by its serving signature: encoded images in, as a server gets them."""

from pathlib import Path

from components.core.record import StepRecord
from components.core.release import Release, stage_cloud
from components.core.settings import section, value
from components.core.stores import Store
from components.evaluation.evaluate import Subject, evaluate
from components.evaluation.evaluation import Evaluation
from components.evaluation.models import CloudModel
from components.evaluation.settings import EvaluateSettings
from components.training.training import CLOUD_MODEL, read_training


def evaluate_cloud_model(record: StepRecord, *, examples: Path, model: Path, settings: str, output: Path) -> Evaluation:
    """Evaluate the artifact of train_cloud in `model` on `examples`; the evaluation artifact lands in `output`.

    The gate's verdict is in the evaluation, not an error. Raises `DataError` if the model can't be loaded or has other labels.
    """
    own = section(settings, "evaluate_cloud", EvaluateSettings)
    subject = Subject("cloud", CloudModel(model / CLOUD_MODEL, read_training(model).labels), open_released)
    return evaluate(record, subject, settings=own, seed=int(value(settings, "seed", 1)), examples=examples, output=output)


def open_released(store: Store, release: Release, folder: Path) -> CloudModel:
    """Fetch a release's SavedModel below `folder`, checked file by file, and load it."""
    version = stage_cloud(store, release.id, folder)
    return CloudModel(folder / str(version), release.labels)
