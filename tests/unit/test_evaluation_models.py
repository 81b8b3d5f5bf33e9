"""Exported artifacts, tiny but real, go through evaluate_cloud and evaluate_mobile."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.core.preprocessing import Preprocessing

LABELS = ["daisy", "roses", "tulips"]
CONTRACT = Preprocessing(height=32, width=32)
SETTINGS = json.dumps({"seed": 3})


def colour_network(bias: float = 0.0, sharpness: float = 60.0) -> Any:
    """The class is the brightest colour channel; `bias` pulls answers towards the first class."""
    import keras

    network = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    network.layers[-1].set_weights([np.eye(3, dtype=np.float32) * sharpness, np.array([bias, 0, 0], np.float32)])
    return network


def write_cloud(root: Path, network: Any, labels: list[str] = LABELS, graph_labels: list[str] | None = None) -> Path:
    from components.training.export import export_saved_model
    from components.training.training import Training, WeightsUsed, write_training

    export_saved_model(network, graph_labels or labels, CONTRACT, root / "saved_model")
    training = Training(
        kind="cloud",
        backbone="colour",
        weights=WeightsUsed(asked="none", used="none"),
        preprocessing=CONTRACT,
        labels=labels,
        seed=1,
        examples_digest="",
        parameters=12,
        epochs={},
        history=[],
        validation={},
        precision="float32",
        replicas=1,
        seconds={},
        settings={},
    )
    write_training(root, training)
    return root


def write_mobile(root: Path, network: Any, labels: list[str] = LABELS) -> Path:
    import tensorflow as tf

    holder: Any = tf.Module()
    spec = tf.TensorSpec([1, 32, 32, 3], tf.float32, name="pixels")
    holder.call = tf.function(network.call, input_signature=[spec])
    converter: Any = tf.lite.TFLiteConverter.from_concrete_functions([holder.call.get_concrete_function()], holder)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    noise = np.random.default_rng(0).uniform(0, 255, (8, 1, 32, 32, 3)).astype(np.float32)
    extremes = [np.zeros((1, 32, 32, 3), np.float32), np.full((1, 32, 32, 3), 255, np.float32)]
    converter.representative_dataset = lambda: ([image] for image in [*noise, *extremes])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    root.mkdir(parents=True, exist_ok=True)
    (root / "model.tflite").write_bytes(converter.convert())
    with zipfile.ZipFile(root / "model.tflite", "a") as archive:
        archive.writestr("labels.txt", "".join(f"{label}\n" for label in labels))
    (root / "quantization.json").write_text(json.dumps({"preprocessing": CONTRACT.model_dump(), "labels": labels}))
    return root


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cloud(tmp_path_factory.mktemp("cloud"), colour_network())


@pytest.fixture(scope="module")
def mobile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Biased to the first class: right on some images only."""
    return write_mobile(tmp_path_factory.mktemp("mobile"), colour_network(bias=10.5))
