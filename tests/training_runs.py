"""Small trainings for tests: a backbone that is traced in seconds, its weights in a file, and a step run as a process."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.core.record import Record, open_step, read_records
from components.core.stores import open_store
from components.training.training import MOBILE_MODEL
from tests.conftest import tiny_jpeg

BACKBONE = "MobileNetV3SmallMinimalistic"


def save_tiny_weights(folder: Path) -> Path:
    """Random weights of `BACKBONE` as a file, the same on every call.

    Its batch normalisations have seen a few pictures: without that a random network of this depth gives nothing but zeros.
    """
    import keras

    keras.utils.set_random_seed(5)
    make: Any = keras.applications.MobileNetV3Small
    network = make(minimalistic=True, include_top=False, weights=None, input_shape=(32, 32, 3))
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.5
    pictures = np.stack([np.asarray(Image.open(io.BytesIO(tiny_jpeg(index % 3, index, side=32)))) for index in range(48)])
    for _ in range(8):
        network(pictures.astype(np.float32), training=True)
    network.save_weights(path := folder / "tiny.weights.h5")
    return path


def settings_text(section: str, weights: Path | str, *, fine_tune: int = 0, **changes: Any) -> str:
    """A run's settings for a training of seconds."""
    chosen = {
        "backbone": BACKBONE,
        "weights": str(weights),
        "image_size": 32,
        "fine_tune": {"epochs": fine_tune, "batch_size": 8, "learning_rate": 0.001, "patience": 9},
        "from_scratch": {"epochs": 2, "image_size": 32, "batch_size": 16},
        **changes,
    }
    return json.dumps({"name": "classifier", "seed": 3, section: chosen})


def load_network(folder: Path) -> Any:
    """The Keras model of a mobile training's artifact folder."""
    import keras

    return keras.models.load_model(folder / MOBILE_MODEL)


def run_mobile(store: Path | str, examples: Path, settings: str, output: Path) -> Record:
    """The step train_mobile in this process; its record as the store has it."""
    from components.train_mobile.train import train_mobile_model

    with open_step("train_mobile", store=str(store), run_id="run") as record:
        train_mobile_model(record, examples=examples, settings=settings, output=output)
    return read_records(open_store(str(store)), "run")["train_mobile"]


def start_mobile(store: Path, examples: Path, settings: str, output: Path) -> "subprocess.Popen[bytes]":
    """The same as a process of its own, to be killed."""
    arguments = [str(store), str(examples), settings, str(output)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen([sys.executable, "-m", "tests.training_runs", *arguments], env=environment)


if __name__ == "__main__":
    run_mobile(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
