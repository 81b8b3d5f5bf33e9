"""The process that loads the .tflite as an app would, runs the golden images, and measures. No TensorFlow.

`python -m components.validate_infra.mobile_worker MODEL GOLDEN RESULT REQUESTS` writes RESULT (JSON: `MobileResult`) when it is done.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.core.errors import DualError
from components.core.stores import open_store


def main(arguments: list[str]) -> int:
    """Run the checks; exit code 0, or a `DualError`'s."""
    model, golden, result, requests = Path(arguments[0]), Path(arguments[1]), Path(arguments[2]), int(arguments[3])
    try:
        answer = examine(model, golden, requests)
    except DualError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    open_store(str(result.parent)).put(result.name, json.dumps(answer).encode())
    # The parent reads this process' peak memory before it lets go.
    sys.stdin.read()
    return 0


def examine(model: Path, golden: Path, requests: int) -> dict[str, Any]:
    """Load the model; `outputs` (uint8 per golden image), `latencies_ms`, `load_seconds`, and how bad pixels were refused."""
    from components.quantize_mobile.interpreter import Classifier

    began = time.perf_counter()
    classifier = Classifier(model, threads=1)
    load_seconds = time.perf_counter() - began
    images = json.loads((golden / "golden.json").read_text())["images"]
    pixels = [_pixels(golden / image["pixels"]) for image in images]
    outputs = [[int(step) for step in classifier.predict_raw(each)] for each in pixels]
    latencies = [_timed(classifier, pixels[number % len(pixels)]) for number in range(requests)]
    refusals = {name: _refusal(classifier, bad) for name, bad in _malformed(classifier.input_size).items()}
    again = [[int(step) for step in classifier.predict_raw(each)] for each in pixels]
    return {
        "labels": classifier.labels,
        "load_seconds": load_seconds,
        "outputs": outputs,
        "repeatable": again == outputs,
        "latencies_ms": latencies,
        "refusals": refusals,
    }


def _pixels(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _timed(classifier: Any, pixels: Any) -> float:
    began = time.perf_counter()
    classifier.predict_raw(pixels)
    return (time.perf_counter() - began) * 1000


def _malformed(size: tuple[int, int]) -> dict[str, Any]:
    height, width = size
    return {
        "another size": np.zeros((height + 1, width, 3), np.uint8),
        "float pixels": np.zeros((height, width, 3), np.float32),
        "grey pixels": np.zeros((height, width), np.uint8),
        "no pixels": np.zeros((0, 0, 3), np.uint8),
    }


def _refusal(classifier: Any, pixels: Any) -> str:
    """The text of the clean refusal, or an empty one if the pixels were accepted or something else was raised."""
    try:
        classifier.predict_raw(pixels)
    except DualError as error:
        return str(error)
    except Exception:
        return ""
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
