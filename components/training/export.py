"""The SavedModel that TF Serving loads: preprocessing, network and class names in one graph, under three signatures."""

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from components.core.preprocessing import Preprocessing
from components.training.backbones import inference
from components.training.transform import decode_and_resize

LABELS_ASSET = "labels.txt"
_DECODED_AT_ONCE = 16


def export_saved_model(network: keras.Model, labels: list[str], contract: Preprocessing, folder: Path) -> None:
    """Write a SavedModel into `folder` with these signatures (N images, C = len(labels), H×W by `contract`).

    serving_default: `image_bytes` string [N] (JPEG or PNG) → `probabilities` float32 [N, C], `label` string [N], `score` float32 [N];
    from_pixels: `pixels` uint8 [N, H, W, 3] → the same; transform: `image_bytes` → `pixels`. Bytes that are no image fail with
    InvalidArgument. `labels` also lie in assets/labels.txt, a line each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = folder.parent / f".{folder.name}.{LABELS_ASSET}"
    names.mkdir(exist_ok=True)
    asset = names / LABELS_ASSET
    asset.write_text("".join(f"{label}\n" for label in labels))
    module = _Servable(network, labels, contract, asset)
    tf.saved_model.save(module, str(folder), signatures=module.signatures())
    asset.unlink()
    names.rmdir()


class _Servable(tf.Module):
    """The functions behind the signatures, and the variables and files that they need."""

    def __init__(self, network: keras.Model, labels: list[str], contract: Preprocessing, asset: Path) -> None:
        super().__init__()
        self._contract = contract
        self._labels = tf.constant(labels)
        self.labels_asset = tf.saved_model.Asset(str(asset))
        self._call: Any = inference(network)
        # Concrete: TensorFlow would trace a function that isn't once more while saving, which takes a second for a large network.
        self._call = self._call.get_concrete_function()
        # The variables alone, and not the Keras objects: those would double the graph that a server has to load.
        self._weights = [variable.value for variable in network.variables]

    def signatures(self) -> dict[str, Any]:
        """The three signatures by name. No attributes of this module, so that saving doesn't trace them again either."""
        contract = self._contract
        encoded = tf.TensorSpec([None], tf.string, name="image_bytes")
        pixels = tf.TensorSpec([None, contract.height, contract.width, contract.channels], tf.uint8, name="pixels")
        functions: dict[str, tuple[Any, Any]] = {
            "serving_default": (lambda image_bytes: self._answer(self._decode(image_bytes)), encoded),
            "from_pixels": (self._answer, pixels),
            "transform": (lambda image_bytes: {"pixels": self._decode(image_bytes)}, encoded),
        }
        return {name: tf.function(function).get_concrete_function(spec) for name, (function, spec) in functions.items()}

    def _decode(self, image_bytes: Any) -> Any:
        spec = tf.TensorSpec([self._contract.height, self._contract.width, self._contract.channels], tf.uint8)
        return tf.map_fn(
            lambda one: decode_and_resize(one, self._contract),
            image_bytes,
            fn_output_signature=spec,
            parallel_iterations=_DECODED_AT_ONCE,
        )

    def _answer(self, pixels: Any) -> dict[str, Any]:
        probabilities = self._call(tf.cast(pixels, tf.float32))
        best = tf.argmax(probabilities, axis=1)
        return {
            "probabilities": probabilities,
            "label": tf.gather(self._labels, best),
            "score": tf.reduce_max(probabilities, axis=1),
        }
