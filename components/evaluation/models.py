"""The exported artifacts as they are called in production: encoded images in, probabilities out."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.core.errors import DataError
from components.core.preprocessing import Preprocessing
from components.evaluation.image_model import ImageModel
from components.training.transform import decode_and_resize

__all__ = ["CloudModel", "ImageModel", "MobileModel"]

_FIX = "Run the step that made the model again"


class CloudModel:
    """A SavedModel by its serving signature, as TF Serving calls it."""

    def __init__(self, folder: Path, labels: list[str]) -> None:
        """Load the SavedModel in `folder`; `DataError` if it can't be loaded or has no serving signature."""
        self.labels, self._folder = labels, folder
        try:
            self._model: Any = tf.saved_model.load(str(folder))  # kept: the signature only borrows its variables
            self._signature: Any = self._model.signatures["serving_default"]
        except KeyError:
            raise DataError("the SavedModel has no signature 'serving_default'", where=str(folder), fix=_FIX) from None
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise DataError(f"can't load the SavedModel ({_first_line(error)})", where=str(folder), fix=_FIX) from None

    def predict(self, images: Sequence[bytes]) -> NDArray[np.float32]:
        """One call of the serving signature; the class names it answers are checked against its probabilities."""
        try:
            outputs = self._signature(image_bytes=tf.constant(list(images), dtype=tf.string))
        except tf.errors.OpError as error:
            raise DataError(f"the SavedModel refused a batch ({_first_line(error)})", where=str(self._folder), fix=_FIX) from None
        probabilities = outputs["probabilities"].numpy().astype(np.float32)
        self._check(probabilities, [name.decode() for name in outputs["label"].numpy()])
        return probabilities

    def _check(self, probabilities: NDArray[np.float32], named: list[str]) -> None:
        if probabilities.shape[1] != len(self.labels):
            what = f"the SavedModel has {probabilities.shape[1]} outputs for {len(self.labels)} labels"
            raise DataError(what, where=str(self._folder), fix=_FIX)
        best = [self.labels[index] for index in probabilities.argmax(axis=1)]
        wrong = next(((a, b) for a, b, row in zip(best, named, probabilities, strict=True) if a != b and np.isfinite(row).all()), None)
        if wrong:
            what = f"the graph answers '{wrong[1]}' where its probabilities say '{wrong[0]}': its class names are in another order"
            raise DataError(what, where=str(self._folder), fix=_FIX)


class MobileModel:
    """A .tflite by the LiteRT interpreter, on pixels made by the preprocessing contract, as an app must."""

    def __init__(self, path: Path, preprocessing: Preprocessing) -> None:
        """Load the model; `DataError` if it can't be loaded or takes another size than the contract says."""
        from components.quantize_mobile.interpreter import Classifier

        self._classifier = Classifier(path, threads=min(4, cpu_count() or 1))
        self._contract, self.labels = preprocessing, self._classifier.labels
        size = (preprocessing.height, preprocessing.width)
        if self._classifier.input_size != size:
            raise DataError(f"takes {self._classifier.input_size} pixels, the contract says {size}", where=str(path), fix=_FIX)
        self._decode: Any = tf.function(self._pixels, input_signature=[tf.TensorSpec([], tf.string)])

    def predict(self, images: Sequence[bytes]) -> NDArray[np.float32]:
        """Decode and resize in parallel, then classify one image at a time."""
        try:
            with ThreadPoolExecutor() as pool:
                pixels = list(pool.map(lambda image: self._decode(image).numpy(), images))
        except tf.errors.OpError as error:
            raise DataError(f"an image can't be decoded ({_first_line(error)})", fix="Run the ingest step again") from None
        return self._classifier.predict(np.stack(pixels))

    def _pixels(self, image: Any) -> Any:
        return decode_and_resize(image, self._contract)


def _first_line(error: Exception) -> str:
    message = str(getattr(error, "message", "") or error)
    return message.strip().splitlines()[0].rstrip(".") if message.strip() else type(error).__name__
