"""The artifacts of a finished training, quantization and evaluation of the tiny model: what validate_infra takes."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from components.core.examples import read_examples
from components.core.gate import Verdict
from components.core.preprocessing import Preprocessing
from components.evaluation.evaluation import Evaluation, ModelKind, Predictions, write_evaluation
from components.evaluation.models import CloudModel, ImageModel, MobileModel
from components.evaluation.split import observe
from components.training.training import Training, WeightsUsed, write_training
from components.validate_infra.validate import Artifacts
from tests.serving.saved_model import SIDE, TINY_LABELS, TinyClassifier, export_tiny

CONTRACT = Preprocessing(height=SIDE, width=SIDE)


def make_artifacts(root: Path, examples: Path) -> Artifacts:
    """Export both tiny models and evaluate them on the test split of `examples`."""
    cloud, mobile = root / "train_cloud", root / "quantize_mobile"
    export_tiny(cloud / "saved_model")
    write_training(cloud, _training(examples))
    mobile.mkdir()
    (mobile / "model.tflite").write_bytes(tiny_tflite())
    (mobile / "quantization.json").write_text(f'{{"schema": "dual.quantization/v1", "preprocessing": {CONTRACT.model_dump_json()}}}')
    artifacts = Artifacts(examples, cloud, mobile, root / "evaluate_cloud", root / "evaluate_mobile")
    _evaluate(artifacts.cloud, "cloud", CloudModel(cloud / "saved_model", TINY_LABELS), examples)
    _evaluate(artifacts.mobile, "mobile", MobileModel(mobile / "model.tflite", CONTRACT), examples)
    return artifacts


def tiny_tflite() -> bytes:
    """The tiny classifier as the mobile contract wants it: full int8 inside, uint8 at both ends, labels in a ZIP behind it."""
    model = TinyClassifier()

    @tf.function(input_signature=[tf.TensorSpec([1, SIDE, SIDE, 3], tf.float32)])
    def classify(pixels: Any) -> Any:
        means = tf.reduce_mean(pixels, axis=[1, 2]) / 32.0
        return tf.nn.softmax(means)

    function: Any = classify
    converter: Any = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    samples = np.random.default_rng(0).integers(0, 256, (20, 1, SIDE, SIDE, 3)).astype(np.float32)
    samples[0], samples[1] = 0.0, 255.0
    converter.representative_dataset = lambda: ([sample] for sample in samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    labels = io.BytesIO()
    with zipfile.ZipFile(labels, "w") as archive:
        archive.writestr("labels.txt", "".join(f"{label}\n" for label in TINY_LABELS))
    return converter.convert() + labels.getvalue()


def rewrite_predictions(folder: Path, evaluation: Evaluation, predictions: Predictions, probabilities: Any) -> None:
    """Store other probabilities than the model's as its evaluation."""
    write_evaluation(folder, evaluation, Predictions(predictions.keys, predictions.labels, probabilities.astype(np.float32)))


def _training(examples: Path) -> Training:
    return Training(
        kind="cloud",
        backbone="tiny",
        weights=WeightsUsed(asked="none", used="none"),
        preprocessing=CONTRACT,
        labels=TINY_LABELS,
        seed=1,
        examples_digest=read_examples(examples).digest,
        parameters=3,
        epochs={},
        history=[],
        validation={},
        precision="float32",
        replicas=1,
        seconds={},
        settings={},
    )


def _evaluate(folder: Path, kind: ModelKind, model: ImageModel, examples: Path) -> None:
    predictions = observe(model, examples, "test", 8).predictions
    facts = read_examples(examples)
    evaluation = Evaluation(
        model=kind,
        split="test",
        examples=len(predictions),
        labels=facts.labels,
        examples_digest=facts.digest,
        metrics={"accuracy": float(predictions.correct.mean())},
        intervals={},
        confusion=[],
        slices={},
        verdict=Verdict(step=f"evaluate_{kind}", blessed=True),
    )
    write_evaluation(folder, evaluation, predictions)
