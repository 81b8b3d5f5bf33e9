"""Random changes of training images, drawn from (seed, epoch or view, batch) only: a resumed run sees the same pictures."""

from typing import Any

import tensorflow as tf

from components.training.settings import AugmentSettings

_LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601 weights of red, green and blue."""


def augment(pixels: Any, seed: Any, settings: AugmentSettings) -> Any:
    """Crop, mirror and recolour a batch: RGB [N, H, W, 3] in [0, 255] (uint8 or float) → float32 of the same shape and range.

    `seed` is an int64 pair; the same seed gives the same batch on every machine (stateless random numbers).
    """
    images = tf.cast(pixels, tf.float32)
    count: Any = tf.shape(images)[0]
    draws: Any = tf.random.stateless_uniform([count, 8], seed)
    cropped = _crop_and_mirror(images, draws, settings)
    return tf.clip_by_value(_recolour(cropped, draws, settings), 0.0, 255.0)


def _crop_and_mirror(images: Any, draws: Any, settings: AugmentSettings) -> Any:
    """One bilinear resampling does both: a box whose right edge is left of its left edge mirrors."""
    side = tf.sqrt(settings.min_crop + (1.0 - settings.min_crop) * draws[:, 0])
    top, left = draws[:, 1] * (1.0 - side), draws[:, 2] * (1.0 - side)
    mirrored = draws[:, 3] < (0.5 if settings.flip else 0.0)
    x1, x2 = tf.where(mirrored, left + side, left), tf.where(mirrored, left, left + side)
    boxes = tf.stack([top, x1, top + side, x2], axis=1)
    shape = tf.shape(images)
    resampled: Any = tf.image.crop_and_resize(images, boxes, tf.range(shape[0]), shape[1:3])
    return tf.ensure_shape(resampled, images.shape)


def _recolour(images: Any, draws: Any, settings: AugmentSettings) -> Any:
    """Saturation s, contrast c, brightness b, multiplied out so that the pixels are passed over few times.

    x' = grey + s (x − grey), x″ = mean(x') + c (x' − mean(x')), result b x″ = bcs·x + bc(1−s)·grey + b(1−c)·mean(x').
    """

    def factor(column: int, largest: float) -> Any:
        return (1.0 + largest * (2.0 * draws[:, column] - 1.0))[:, None, None, None]

    s, c, b = factor(4, settings.saturation), factor(5, settings.contrast), factor(6, settings.brightness)
    grey = tf.linalg.matvec(images, tf.constant(_LUMA))[..., None]
    mean = s * tf.reduce_mean(images, axis=[1, 2, 3], keepdims=True) + (1.0 - s) * tf.reduce_mean(grey, axis=[1, 2, 3], keepdims=True)
    return images * (b * c * s) + (grey * (b * c * (1.0 - s)) + b * (1.0 - c) * mean)
