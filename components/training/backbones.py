"""Networks of keras.applications by name, with their rescaling inside and a softmax head on top.

Every network takes float32 [N, H, W, 3] RGB in [0, 255] and gives float32 probabilities [N, C]. It is one flat functional model
(the backbone's layers keep the names that keras.applications gave them), so that it can be rebuilt layer by layer elsewhere.
"""

import inspect
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components.core.errors import UsageError
from components.training.imagenet import WeightsUnavailableError, bounded_downloads, reachable

FEATURES = "features"
"""Name of the layer whose output [N, D] is what the head learns on."""
PROBABILITIES = "probabilities"
"""Name of the dense softmax layer."""
MOST_CONSTANTS = 100_000_000
"""Parameters of the largest network whose weights `frozen_inference` turns into constants."""
_MINIMALISTIC = "Minimalistic"


def build_network(
    backbone: str, size: int, classes: int, *, weights: str | Path | None, dropout: float, key: str = "weights"
) -> keras.Model:
    """The whole network; `weights` is "imagenet", the path of an .h5 file, or None.

    Raises `WeightsUnavailableError` for "imagenet" without cache and network, `UsageError` naming the settings `key` for a file
    that can't be loaded into this backbone.
    """
    base = _build_base(backbone, size, weights, key)
    features = keras.layers.GlobalAveragePooling2D(name=FEATURES)(base.output)
    dropped = keras.layers.Dropout(dropout, name="head_dropout")(features)
    # Probabilities stay float32 under mixed precision: 16 bits are too few for a logarithm.
    probabilities = keras.layers.Dense(classes, activation="softmax", name=PROBABILITIES, dtype="float32")(dropped)
    return keras.Model(base.input, probabilities, name=backbone)


def feature_network(network: keras.Model) -> keras.Model:
    """The part of `network` from pixels to features [N, D]; shares its weights."""
    return keras.Model(network.input, network.get_layer(FEATURES).output)


def inference(network: keras.Model) -> Callable[[Any], Any]:
    """`network` in inference mode, float32 [N, H, W, 3] → its output, as one graph for every N (a graph per N costs seconds each)."""
    shape = network.input_shape
    return tf.function(lambda pixels: network(pixels, training=False), input_signature=[tf.TensorSpec(shape, tf.float32)])


def frozen_inference(network: keras.Model, images: int | None = None) -> Callable[[Any], Any]:
    """As `inference`, with the weights of this moment as constants; for N = `images` only, if that is given.

    TensorFlow then folds batch normalisations into the convolutions: a quarter less CPU time (MobileNetV3-Small). A graph can't hold
    2 GB, so very large networks keep their variables.
    """
    if network.count_params() > MOST_CONSTANTS:
        return inference(network)
    learnt = [variable.numpy() for variable in network.trainable_variables]
    others = [variable.numpy() for variable in network.non_trainable_variables]
    return tf.function(
        lambda pixels: network.stateless_call(learnt, others, pixels, training=False)[0],
        input_signature=[tf.TensorSpec((images, *network.input_shape[1:]), tf.float32)],
    )


def freeze_batch_norm(network: keras.Model) -> None:
    """Put every batch normalisation into inference mode for good: its statistics and scales stay as they came."""
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def unfreeze(network: keras.Model, layers: str | int) -> None:
    """Let the head and the backbone's last `layers` layers (or "all") learn, batch normalisation excepted."""
    backbone = network.layers[: [layer.name for layer in network.layers].index(FEATURES)]
    frozen = 0 if layers == "all" else max(0, len(backbone) - int(layers))
    for index, layer in enumerate(backbone):
        layer.trainable = index >= frozen
    freeze_batch_norm(network)


def lower_batch_norm_momentum(network: keras.Model, momentum: float) -> None:
    """Let moving statistics follow within a short training: no batch normalisation keeps a momentum above `momentum`."""
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = min(layer.momentum, momentum)


def rescaling_of(backbone: str) -> tuple[list[float], list[float], bool]:
    """A backbone's own scaling of RGB in [0, 255] as (scale, offset) per channel, after swapping to BGR if the last is True.

    Found by asking the module's `preprocess_input` about black and primary colours; all of keras.applications' are of this form.
    """
    prepare: Any = _module(backbone).preprocess_input
    colours = np.concatenate([np.zeros((1, 3)), np.eye(3)]).astype("float32").reshape(4, 1, 1, 3)
    answers = np.asarray(prepare(colours)).reshape(4, 3)
    offset, slopes = answers[0], answers[1:] - answers[0]
    swapped = bool(abs(slopes[0, 2]) > abs(slopes[0, 0]))
    scale = np.diag(slopes[:, ::-1] if swapped else slopes)
    return [float(s) for s in (scale[::-1] if swapped else scale)], [float(o) for o in offset], swapped


def _build_base(backbone: str, size: int, weights: str | Path | None, key: str) -> keras.Model:
    make = _maker(backbone, size)
    if weights is None:
        return make(None)
    if weights == "imagenet":
        return _with_imagenet(backbone, make)
    try:
        with warnings.catch_warnings():
            # Keras only warns when a file lacks layers, and leaves those random.
            warnings.filterwarnings("error", message=".*freshly-initialized.*")
            return make(str(weights))
    except (ValueError, OSError, KeyError, TypeError, UserWarning) as error:
        why = " ".join(str(error).split())[:300]
        raise UsageError(
            f"the weights in {weights} can't be loaded into {backbone} without its top: {why}",
            where=f"settings key {key}",
            fix="Give an .h5 file that was saved from this backbone with include_top=False",
        ) from None


def _with_imagenet(backbone: str, make: Callable[[str | None], keras.Model]) -> keras.Model:
    online = reachable()
    try:
        with bounded_downloads(online):
            return make("imagenet")
    # Keras wraps every failed download in a bare Exception.
    except Exception as error:
        why = "the network can't be reached" if not online else " ".join(str(error).split())[:200]
        raise WeightsUnavailableError(why) from None


def _maker(backbone: str, size: int) -> Callable[[str | None], keras.Model]:
    application = getattr(keras.applications, backbone.removesuffix(_MINIMALISTIC))
    options: dict[str, Any] = {"include_top": False}
    if backbone.endswith(_MINIMALISTIC):
        options["minimalistic"] = True
    if "include_preprocessing" in inspect.signature(application).parameters:
        return lambda weights: application(weights=weights, input_shape=(size, size, 3), include_preprocessing=True, **options)
    return lambda weights: application(weights=weights, input_tensor=_rescaled_input(backbone, size), **options)


def _rescaled_input(backbone: str, size: int) -> Any:
    pixels = keras.Input((size, size, 3), name="pixels")
    scale, offset, swapped = rescaling_of(backbone)
    channels = keras.ops.flip(pixels, axis=-1) if swapped else pixels
    layer: Any = keras.layers.Rescaling
    # EfficientNetB0 to B7 have a layer "rescaling" of their own, although their module's `preprocess_input` changes nothing.
    return layer(scale, offset, name="pixel_rescaling")(channels)


def _module(backbone: str) -> Any:
    return sys.modules[getattr(keras.applications, backbone.removesuffix(_MINIMALISTIC)).__module__]
