"""The published .tflite as an app runs it: LiteRT's interpreter and numpy, no TensorFlow."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.core.errors import DataError, UsageError

LABELS_FILE = "labels.txt"
_FIX = "Run quantize_mobile again, or fetch the file again"


class Classifier:
    """One loaded .tflite: uint8 RGB pixels in, one probability per label out, one image at a time inside.

    Models with float32 edges (the float reference) are fed the same pixels as float32. One instance belongs to one thread.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Load the model on `threads` CPU threads; `DataError` if the file is missing, damaged or no image classifier."""
        self.path = path
        self._interpreter = _load(path, threads)
        self._input: dict[str, Any] = self._interpreter.get_input_details()[0]
        self._output: dict[str, Any] = self._interpreter.get_output_details()[0]
        _check_shapes(path, self._input, self._output)
        self.labels: list[str] = read_labels(path)
        """Class names in the order of the outputs, from the metadata; empty if the file has none."""
        if self.labels and len(self.labels) != int(self._output["shape"][1]):
            raise DataError(f"{len(self.labels)} labels for {self._output['shape'][1]} outputs", where=str(path), fix=_FIX)

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return int(self._input["shape"][1]), int(self._input["shape"][2])

    @property
    def input_details(self) -> dict[str, Any]:
        """LiteRT's description of the input tensor (shape, dtype, quantization)."""
        return self._input

    @property
    def output_details(self) -> dict[str, Any]:
        """LiteRT's description of the output tensor."""
        return self._output

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [H, W, 3] or [N, H, W, 3] → probabilities float32 [N, C] (N = 1 for a single image).

        Raises `UsageError` if the pixels have another shape or dtype.
        """
        batch = pixels[np.newaxis] if pixels.ndim == 3 else pixels
        scale, zero_point = self._output["quantization"]
        raw = [self._run(image) for image in batch]
        values = np.array(raw).reshape(len(raw), int(self._output["shape"][1])).astype(np.float32)
        return (values - np.float32(zero_point)) * np.float32(scale) if scale else values

    def predict_raw(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 [H, W, 3] → the output tensor's own uint8 [C]; `UsageError` if the model's output is not uint8."""
        if self._output["dtype"] is not np.uint8:
            raise UsageError(f"the output is {np.dtype(self._output['dtype']).name}, not uint8", where=str(self.path))
        return self._run(pixels)

    def _run(self, image: NDArray[np.uint8]) -> Any:
        expected = (*self.input_size, 3)
        if image.shape != expected or image.dtype != np.uint8:
            found = f"{image.dtype} {list(image.shape)}"
            raise UsageError(f"expected uint8 {list(expected)} pixels, found {found}", where=str(self.path), fix="Resize the image first")
        self._interpreter.set_tensor(self._input["index"], image[np.newaxis].astype(self._input["dtype"]))
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output["index"])[0]


def read_labels(path: Path) -> list[str]:
    """Class names from labels.txt inside the .tflite (the associated file of its metadata); empty if there is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(LABELS_FILE).decode().splitlines()
    except (KeyError, zipfile.BadZipFile):
        return []
    except OSError as error:
        raise DataError(error.strerror or str(error), where=str(path), fix=_FIX) from None


def _load(path: Path, threads: int) -> Any:
    # LiteRT tells every process that it made an XNNPACK delegate; that is no news.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from ai_edge_litert.interpreter import Interpreter

    if not path.is_file():
        raise DataError("the file is missing", where=str(path), fix=_FIX)
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].rstrip(".")
        raise DataError(f"LiteRT can't load the model ({reason})", where=str(path), fix=_FIX) from None
    return interpreter


def _check_shapes(path: Path, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
    image, scores = list(inputs["shape"]), list(outputs["shape"])
    if len(image) != 4 or image[0] != 1 or image[3] != 3 or len(scores) != 2 or scores[0] != 1:
        raise DataError(f"input {image} → output {scores} is no classifier of one RGB image", where=str(path), fix=_FIX)
