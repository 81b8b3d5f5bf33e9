"""Ask the promoted pair: the cloud model, the mobile model, or both layered by the release's policy."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from platformdirs import user_cache_path

from components.core.errors import DataError, UsageError
from components.core.release import Release, fetch_release, read_baseline
from components.core.stores import open_store

_MAX_BYTES = 32 << 20


@dataclass(frozen=True)
class Answer:
    """The predicted label, its score in [0, 1], and which model gave it."""

    label: str
    score: float
    model: Literal["cloud", "mobile"]


class Predictor(Protocol):
    """Answers for one image file; `DataError` if it can't be read."""

    def predict(self, image: Path) -> Answer:
        """Classify the image."""
        ...


class CloudPredictor:
    """The SavedModel by its serving signature, in this process."""

    def __init__(self, folder: Path) -> None:
        """Use the SavedModel in `folder`; it is loaded on the first question."""
        self._folder = folder

    @cached_property
    def _signature(self) -> Any:
        import tensorflow as tf

        self._model: Any = tf.saved_model.load(str(self._folder))  # kept: the signature only borrows its variables
        return self._model.signatures["serving_default"]

    def predict(self, image: Path) -> Answer:
        """Decoding, resizing and class names are in the graph."""
        import tensorflow as tf

        data = read_image(image)
        try:
            outputs = self._signature(image_bytes=tf.constant([data]))
        except tf.errors.InvalidArgumentError:
            raise _not_an_image(image) from None
        return Answer(outputs["label"].numpy()[0].decode(), float(outputs["score"].numpy()[0]), "cloud")


class MobilePredictor:
    """The int8 .tflite by the LiteRT interpreter, on pixels made by the preprocessing contract."""

    def __init__(self, path: Path, release: Release) -> None:
        """Use the .tflite at `path`; it is loaded on the first question."""
        self._path, self._release = path, release

    @cached_property
    def _classifier(self) -> Any:
        from components.quantize_mobile.interpreter import Classifier

        return Classifier(self._path)

    def predict(self, image: Path) -> Answer:
        """Decode and resize as a phone must, then classify."""
        import tensorflow as tf

        from components.training.transform import decode_and_resize

        try:
            pixels = decode_and_resize(read_image(image), self._release.preprocessing.mobile).numpy()
        except tf.errors.InvalidArgumentError:
            raise _not_an_image(image) from None
        probabilities = self._classifier.predict(pixels)[0]
        best = int(np.argmax(probabilities))
        return Answer(self._release.labels[best], float(probabilities[best]), "mobile")


class LayeredPredictor:
    """The phone answers when it is sure enough, else the cloud does (policy of the release)."""

    def __init__(self, mobile: Predictor, cloud: Predictor, release: Release) -> None:
        """Combine both by the release's policy."""
        from components.core.policy import LayeredPolicy

        self._mobile, self._cloud = mobile, cloud
        self._policy = LayeredPolicy.model_validate(release.policy)

    def predict(self, image: Path) -> Answer:
        """The mobile model's answer, or the cloud model's if the policy says to ask."""
        answer = self._mobile.predict(image)
        return answer if self._policy.decide(answer.score) == "mobile" else self._cloud.predict(image)


def open_predictor(store_uri: str, model: str, cache: Path | None = None) -> Predictor:
    """A predictor over the store's promoted release, fetched and checked file by file into the user's cache.

    `model` is cloud, mobile or layered. Raises `UsageError` if nothing is promoted, `DataError` if a digest differs.
    """
    store = open_store(store_uri)
    release = read_baseline(store)
    if release is None:
        raise UsageError("nothing is promoted yet", where=store_uri, fix="Ship a release with: dual run --data SOURCE --store STORE")
    folder = (cache or user_cache_path("dual-deploy")) / "releases" / release.id
    fetch_release(store, release.id, folder)
    cloud = CloudPredictor(folder / release.models.cloud.path)
    mobile = MobilePredictor(folder / release.models.mobile.path / "model.tflite", release)
    if model == "layered":
        return LayeredPredictor(mobile, cloud, release)
    return cloud if model == "cloud" else mobile


def read_image(path: Path) -> bytes:
    """The file's bytes, sizes and format checked before anything decodes them; `DataError` names the file."""
    from io import BytesIO

    from PIL import Image, UnidentifiedImageError

    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"is larger than {_MAX_BYTES >> 20} MiB", where=str(path), fix="Send a smaller image")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"can't be read ({error.strerror})", where=str(path), fix="Check the path") from None
    try:
        with Image.open(BytesIO(data), formats=("JPEG", "PNG")) as image:
            image.verify()
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError):
        raise _not_an_image(path) from None
    return data


def _not_an_image(path: Path) -> DataError:
    return DataError("is not a readable JPEG or PNG image", where=str(path), fix="Convert it, or leave it out")
