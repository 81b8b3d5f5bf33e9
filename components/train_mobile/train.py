"""Train the mobile model with the run's settings."""

from pathlib import Path

from components.core.examples import read_examples
from components.core.record import StepRecord
from components.core.settings import section, value
from components.training.settings import MobileTrainSettings
from components.training.train import train


def train_mobile_model(record: StepRecord, *, examples: Path, settings: str, output: Path) -> None:
    """Fill `output` with the mobile model, training.json and tensorboard/, by the section `train_mobile` of the run's settings.

    Errors: see `components.training.train.train` and `components.training.teacher.find_teacher`.
    """
    chosen = section(settings, "train_mobile", MobileTrainSettings)
    if chosen.teacher.release:
        chosen = _with_teacher(record, chosen, examples)
    train(record, "mobile", examples=examples, settings=chosen, seed=int(value(settings, "seed", 1)), output=output)


def _with_teacher(record: StepRecord, chosen: MobileTrainSettings, examples: Path) -> MobileTrainSettings:
    """The settings with the id of the release that teaches: what `stable` means may change, the cached result must not."""
    from components.training.teacher import find_teacher

    release = find_teacher(record.store, chosen.teacher.release, read_examples(examples).labels)
    if release:
        record.note(f"Distilled from the cloud model of release {release.id} (share {chosen.teacher.share:g})")
    else:
        record.warn("train_mobile.teacher.release is stable, but nothing is promoted yet: trained without a teacher")
    teacher = chosen.teacher.model_copy(update={"release": release.id if release else ""})
    return chosen.model_copy(update={"teacher": teacher})
