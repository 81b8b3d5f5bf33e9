"""A cloud model of an earlier release as the teacher of the mobile one.

Hinton et al. 2015, "Distilling the knowledge in a neural network", at temperature 1: cross-entropy with targets that mix the labels and
the teacher's probabilities has the gradients of the mixed loss, so only the targets change. Label smoothing smooths the mix.
"""

from pathlib import Path
from typing import Any

import tensorflow as tf

from components.core.errors import DataError, UsageError
from components.core.release import Release, place_files, read_baseline, read_release
from components.core.stores import Store
from components.training.settings import TeacherSettings


def find_teacher(store: Store, asked: str, labels: list[str]) -> Release | None:
    """The release that `train_mobile.teacher.release` asks for; None for `stable` before anything was promoted.

    Raises `DataError` if there is no such release, `UsageError` if it knows other labels.
    """
    release = read_baseline(store) if asked == "stable" else read_release(store, asked)
    if release and release.labels != labels:
        what = f"release {release.id} knows the labels {', '.join(release.labels)}, the examples have {', '.join(labels)}"
        fix = "Name a release with the same labels, or leave it empty"
        raise UsageError(what, where="settings key train_mobile.teacher.release", fix=fix)
    return release


class Teacher:
    """Mixes a release's answers into the targets of training."""

    def __init__(self, store: Store, settings: TeacherSettings, folder: Path) -> None:
        """Fetch the SavedModel of `settings.release` (an id) into `folder` and load it; `DataError` if it can't be."""
        release = read_release(store, settings.release)
        target = folder / release.id
        place_files(store, release.cloud_folder(), release.models.cloud.files, target)
        self._share = settings.share
        try:
            self._model: Any = tf.saved_model.load(str(target))  # kept: the signature only borrows its variables
            self._answer: Any = self._model.signatures["from_pixels"]
        except (KeyError, OSError, ValueError) as error:
            raise DataError(f"the teacher can't be loaded ({error})", where=str(target), fix="Name another release") from None
        contract = release.preprocessing.cloud
        self._size = (contract.height, contract.width)

    def follow(self, batches: Any) -> Any:
        """Batches of (pixels, one-hot labels, weights) with (1 - share) · label + share · teacher's probabilities for labels."""
        return batches.map(lambda pixels, labels, weights: (pixels, self.mix(pixels, labels), weights)).prefetch(1)

    def mix(self, pixels: Any, labels: Any) -> Any:
        """The targets of pixels float32 [N, H, W, 3] in [0, 255], resized to what the teacher takes."""
        resized = tf.image.resize(pixels, self._size, "bilinear")
        shown = tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)
        return (1.0 - self._share) * labels + self._share * self._answer(pixels=shown)["probabilities"]
