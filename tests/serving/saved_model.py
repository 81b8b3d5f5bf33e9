"""A tiny SavedModel with the contract's signatures, whose answers can be calculated by hand."""

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
        self.bias = tf.Variable([bias, 0.0, 0.0])
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
