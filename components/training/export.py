"""The SavedModel that TF Serving loads: preprocessing, network and class names in one graph, under three signatures."""

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from components.core.preprocessing import Preprocessing
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
    signatures: Any = {
        "serving_default": module.serving_default,
        "from_pixels": module.from_pixels.get_concrete_function(
            tf.TensorSpec([None, contract.height, contract.width, contract.channels], tf.uint8, name="pixels")
        ),
        "transform": module.transform,
    }
    tf.saved_model.save(module, str(folder), signatures=signatures)
    asset.unlink()
    names.rmdir()


class _Servable(tf.Module):
    """The functions behind the signatures. tf.function wants the first argument to be called `self`."""

    def __init__(self, network: keras.Model, labels: list[str], contract: Preprocessing, asset: Path) -> None:
        super().__init__()
        self._contract = contract
        self._labels = tf.constant(labels)
        self.labels_asset = tf.saved_model.Asset(str(asset))
        self._call = tf.function(lambda pixels: network(pixels, training=False))
        # The variables alone, and not the Keras objects: those would double the graph that a server has to load.
        self._weights = [variable.value for variable in network.variables]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serving_default(self, image_bytes: Any) -> dict[str, Any]:
        """Encoded images to answers."""
        return self._answer(self._decode(image_bytes))

    @tf.function
    def from_pixels(self, pixels: Any) -> dict[str, Any]:
        """Resized pixels to answers."""
        return self._answer(pixels)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def transform(self, image_bytes: Any) -> dict[str, Any]:
        """Encoded images to the pixels that both networks see."""
        return {"pixels": self._decode(image_bytes)}

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
