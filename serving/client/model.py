"""The model in service on a device: an image's bytes in, labelled answer out. LiteRT and Pillow, no TensorFlow."""

from dataclasses import dataclass

import numpy as np

from components.core.policy import LayeredPolicy
from serving.client.pixels import decode_and_resize
from serving.client.selftest import Runner
from serving.client.shelf import Installed

_STEPS = 256


@dataclass(frozen=True)
class MobileAnswer:
    """What the phone's model says of one image."""

    label: str
    score: float
    """Its highest probability, in [0, 1)."""
    probabilities: list[float]


class MobileModel:
    """One loaded model. One instance belongs to one thread."""

    def __init__(self, installed: Installed, runner: Runner) -> None:
        """The model of `installed`, loaded by `runner`."""
        self.installed, self._runner = installed, runner
        self.policy = LayeredPolicy.model_validate(installed.policy)

    def classify(self, image: bytes) -> MobileAnswer:
        """JPEG or PNG bytes → answer; `DataError` if they are no such image."""
        mobile = self.installed.mobile
        raw = self._runner.predict_raw(decode_and_resize(image, mobile.contract.preprocessing))
        best = int(np.argmax(raw))
        probabilities = [int(step) / _STEPS for step in raw]
        return MobileAnswer(mobile.labels[best], probabilities[best], probabilities)
