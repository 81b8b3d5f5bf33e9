"""Train the mobile model with the run's settings."""

from pathlib import Path

from components.core.record import StepRecord
from components.core.settings import section, value
from components.training.settings import MobileTrainSettings
from components.training.train import train


def train_mobile_model(record: StepRecord, *, examples: Path, settings: str, output: Path) -> None:
    """Fill `output` with the mobile model, training.json and tensorboard/, by the section `train_mobile` of the run's settings.

    Errors: see `components.training.train.train`.
    """
    chosen = section(settings, "train_mobile", MobileTrainSettings)
    train(record, "mobile", examples=examples, settings=chosen, seed=int(value(settings, "seed", 1)), output=output)
