"""A tiny SavedModel with the contract's signatures, whose answers can be calculated by hand.

`python -m tests.serving.saved_model FOLDER` writes what the conformance suite expects a real TF Serving to serve (docs/serving.md).
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from components.core.preprocessing import Preprocessing
from components.training.transform import decode_and_resize

SIDE = 32
TINY_LABELS = ["daisy", "roses", "tulips"]


class TinyClassifier(tf.Module):
    """Mean red, green and blue, sharpened, as the probabilities of three classes; `bias` makes versions tell apart."""

    def __init__(self, bias: float = 0.0) -> None:
        """Keep the bias of the first class as a variable, so that loading has something to restore."""
        super().__init__()
        self.bias: Any = tf.Variable(tf.constant([bias, 0.0, 0.0]))
        self.labels = tf.constant(TINY_LABELS)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="pixels")])
    def from_pixels(self, pixels: Any) -> dict[str, Any]:
        """Pixels → probabilities, label, score."""
        means = tf.reduce_mean(tf.cast(pixels, tf.float32), axis=[1, 2]) / 32.0
        probabilities = tf.nn.softmax(means + self.bias)
        label = tf.gather(self.labels, tf.argmax(probabilities, axis=1))
        return {"probabilities": probabilities, "label": label, "score": tf.reduce_max(probabilities, axis=1)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def transform(self, image_bytes: Any) -> dict[str, Any]:
        """JPEG or PNG bytes → pixels."""
        contract = Preprocessing(height=SIDE, width=SIDE)
        return {"pixels": tf.map_fn(lambda one: decode_and_resize(one, contract), image_bytes, fn_output_signature=tf.uint8)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serve(self, image_bytes: Any) -> dict[str, Any]:
        """JPEG or PNG bytes → probabilities, label, score."""
        return self.from_pixels(self.transform(image_bytes)["pixels"])

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def double(self, x: Any) -> dict[str, Any]:
        """Twice the input: one output, so that row format drops its name."""
        return {"y": 2.0 * x}

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, name="text"), tf.TensorSpec([None], tf.int32, name="count")],
    )
    def echo(self, text: Any, count: Any) -> dict[str, Any]:
        """Two inputs, two outputs, one of which is binary by its name."""
        return {"text_bytes": text, "count": count}


def export_tiny(path: Path, bias: float = 0.0) -> Path:
    """Write the SavedModel to `path`."""
    model = TinyClassifier(bias)
    signatures = {
        "serving_default": model.serve,
        "from_pixels": model.from_pixels,
        "transform": model.transform,
        "double": model.double,
        "echo": model.echo,
    }
    tf.saved_model.save(model, str(path), signatures={name: f.get_concrete_function() for name, f in signatures.items()})
    return path


def expected_probabilities(pixels: Any, bias: float = 0.0) -> Any:
    """What the tiny model answers for uint8 pixels [N, H, W, 3]."""
    logits = pixels.astype(np.float32).mean(axis=(1, 2)) / 32.0 + np.array([bias, 0.0, 0.0], np.float32)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


MODELS_CONFIG = """model_config_list {{
  config {{
    name: "tiny"
    base_path: "{base}/tiny"
    model_platform: "tensorflow"
    model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
    version_labels {{ key: "stable" value: 1 }}
  }}
}}
"""
MONITORING_CONFIG = 'prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }\n'


def write_target(folder: Path, base: str) -> None:
    """Write the tiny model's versions 1 and 2 (3 lies beside them, for reloads), models.config and monitoring.config.

    `base` is the folder's path as the server sees it.
    """
    for version in (1, 2, 3):
        export_tiny(folder / "tiny" / str(version), bias=float(version - 1))
    (folder / "models.config").write_text(MODELS_CONFIG.format(base=base))
    (folder / "monitoring.config").write_text(MONITORING_CONFIG)


if __name__ == "__main__":
    write_target(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "/models")
