"""The preprocessing contract as TensorFlow ops: the one definition that training, export, evaluation and phones' goldens use."""

from typing import Any

import tensorflow as tf

from components.core.preprocessing import Preprocessing


def decode_and_resize(image_bytes: Any, contract: Preprocessing) -> Any:
    """JPEG or PNG bytes (string scalar) → uint8 [height, width, 3] by `contract`."""
    image = tf.io.decode_image(image_bytes, channels=3, expand_animations=False)
    image.set_shape([None, None, 3])
    return resize(image, contract)


def resize(image: Any, contract: Preprocessing) -> Any:
    """RGB pixels [h, w, 3] in [0, 255] → uint8 [height, width, 3]: antialiased bilinear, rounded half to even."""
    size = (contract.height, contract.width)
    scaled = tf.image.resize(tf.cast(image, tf.float32), size, method=contract.method, antialias=contract.antialias)
    return tf.cast(tf.clip_by_value(tf.round(scaled), 0.0, 255.0), tf.uint8)
