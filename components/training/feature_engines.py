"""The two ways of running a frozen backbone: TensorFlow, and LiteRT where its kernels for CPUs (XNNPACK) are faster."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from components.core.errors import UsageError
from components.training.backbones import MOST_CONSTANTS, frozen_inference
from components.training.head import Floats

Engine = Literal["tensorflow", "litert"]
Forward = Callable[[Any], Floats]
"""A tf.data.Dataset of batches (pixels float32 [N, H, W, 3], anything) → features float32 [all images, D], in order."""

FASTER_BY_LITERT = ("ConvNeXt", "DenseNet", "EfficientNet", "MobileNet")
"""How the names of those networks begin that `auto` gives to LiteRT: it was 1.1 to 4.7 times as fast there on two cores (docs/figures.md).

The others gained little or lost, and took seconds longer to make ready: `python -m benchmarks.feature_engines` measures them.
"""


def choose_engine(asked: Literal["auto"] | Engine, backbone: str, *, obstacle: str, gpu: bool, key: str) -> Engine:
    """What `asked` means for `backbone`, given what `litert_obstacle` says of it and whether there is a GPU.

    Raises `UsageError` naming the settings `key` if LiteRT is asked for and there is an obstacle.
    """
    if asked == "auto":
        return "litert" if backbone.startswith(FASTER_BY_LITERT) and not obstacle and not gpu else "tensorflow"
    if asked == "litert" and obstacle:
        raise UsageError(f"it is litert, but {backbone} {obstacle}", where=f"settings key {key}", fix="Set auto or tensorflow")
    return asked


def litert_obstacle(network: keras.Model, precision: str) -> str:
    """Why LiteRT can't stand in for `network`, as the rest of a sentence about it; empty if it can."""
    if precision != "float32":
        return f"computes in {precision} here, and LiteRT in float32"
    if network.distribute_strategy.num_replicas_in_sync > 1:
        return "lives on several devices here, and LiteRT on the CPU"
    return "" if network.count_params() <= MOST_CONSTANTS else f"has more than {MOST_CONSTANTS:,} parameters"


def make_forward(engine: Engine, backbone: keras.Model, *, most: int, key: str) -> Forward:
    """`backbone` with the weights of this moment, ready to run; LiteRT then works on as many images at once as there are cores, or `most`.

    Raises `UsageError` naming the settings `key` if LiteRT can't have this network.
    """
    if engine == "litert":
        return LiteRTForward(_converted(backbone, key), min(most, os.cpu_count() or 1))
    if backbone.distribute_strategy.num_replicas_in_sync > 1:
        run: Any = backbone.predict
        return lambda batches: run(batches.map(lambda pixels, _: pixels), verbose=0).astype(np.float32)
    step = frozen_inference(backbone)
    return lambda batches: np.concatenate([np.asarray(step(batch[0]), np.float32) for batch in batches])


class LiteRTForward:
    """A `Forward` that runs a .tflite for a single image [1, H, W, 3] → [1, D], in an interpreter of its own on each thread.

    One image at a time: what comes out then depends on the image alone, not on the batch around it nor on the number of threads, and
    larger batches are no faster.
    """

    def __init__(self, model: bytes, threads: int) -> None:
        """Load the .tflite `model` once for each of `threads`."""
        self._threads = threads
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(threads):
            self._idle.put(_interpreter(model))

    def __call__(self, batches: Iterable[Any]) -> Floats:
        """Features in the order of the images; holds two batches at most."""
        with ThreadPoolExecutor(self._threads) as pool:
            return np.stack(list(self._rows(batches, pool)))

    def _rows(self, batches: Iterable[Any], pool: ThreadPoolExecutor) -> Iterator[Floats]:
        # The next batch is handed out before the last one is waited for, so that no thread runs dry between the two.
        under_way: deque[Future[Floats]] = deque()
        for batch in batches:
            waiting = len(under_way)
            under_way.extend(pool.submit(self._features, image) for image in np.asarray(batch[0])[:, np.newaxis])
            yield from (under_way.popleft().result() for _ in range(waiting))
        yield from (future.result() for future in under_way)

    def _features(self, image: Floats) -> Floats:
        interpreter = self._idle.get()
        try:
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
            interpreter.invoke()
            return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
        finally:
            self._idle.put(interpreter)


def _converted(backbone: keras.Model, key: str) -> bytes:
    function: Any = frozen_inference(backbone, images=1)
    try:
        return tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()]).convert()
    # The converter's own error is of a private class that is a plain Exception.
    except Exception as error:
        what = f"the network can't be converted for LiteRT ({' '.join(str(error).split())[:200]})"
        raise UsageError(what, where=f"settings key {key}", fix="Set auto or tensorflow") from None


def _interpreter(model: bytes) -> Any:
    # LiteRT tells every process that it made an XNNPACK delegate; that is no news.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter
