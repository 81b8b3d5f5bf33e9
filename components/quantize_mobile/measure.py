"""How a .tflite does, by the LiteRT interpreter on the same images as the float model's .tflite."""

import math
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.quantize_mobile.interpreter import Classifier

_WARM_UP = 5


def paired_drop(labels: NDArray[np.int64], reference: NDArray[np.float32], other: NDArray[np.float32]) -> tuple[float, tuple[float, float]]:
    """Accuracy of `reference` minus that of `other` (probabilities [N, C]) on the same images, and its 95 % interval.

    The interval is Wald's for matched proportions with half an observation added to each of the four cells (Agresti, Min 2005,
    "Simple improved confidence intervals for comparing matched proportions"): it has a width also when no answer differs.
    """
    before, after = reference.argmax(axis=1) == labels, other.argmax(axis=1) == labels
    lost, won, count = int(np.sum(before & ~after)), int(np.sum(~before & after)), len(labels)
    b, c, n = lost + 0.5, won + 0.5, count + 2.0
    centre = (b - c) / n
    half = 1.959964 * math.sqrt(b + c - (b - c) ** 2 / n) / n
    return (lost - won) / count, (max(-1.0, centre - half), min(1.0, centre + half))


def agreement(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Share of images on which two models' probabilities [N, C] name the same class."""
    return float(np.mean(a.argmax(axis=1) == b.argmax(axis=1)))


def accuracy(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> float:
    """Share of images [N] whose most probable class is the labelled one."""
    return float(np.mean(probabilities.argmax(axis=1) == labels))


def latency_ms(path: Path, image: NDArray[np.uint8], runs: int, threads: int = 1) -> float:
    """Median milliseconds of one prediction of `image` [H, W, 3], after some to warm up. What this machine takes: a proxy for a phone."""
    model = Classifier(path, threads)
    for _ in range(_WARM_UP):
        model.predict(image)
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        model.predict(image)
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds)) * 1000.0
