"""Dynamic batching: requests that wait at the same time share one run of the model.

One thread per loaded version runs the batches, so that TensorFlow's own threads have the cores. Rows are concatenated as they are (no
padding); a run that fails is repeated request by request, so that one bad image does not fail its neighbours.
"""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Any

import numpy as np

from serving.server.metrics import Metrics
from serving.server.options import Batching
from serving.server.servable import Servable, Signature, rows_of
from serving.server.status import Code, Refusal, from_tensorflow

Arrays = dict[str, Any]
_STOP_SECONDS = 30.0


@dataclass
class _Task:
    signature: Signature
    inputs: Mapping[str, Any]
    outputs: tuple[str, ...]
    rows: int
    future: "Future[Arrays]" = field(default_factory=Future)

    def key(self) -> tuple[Any, ...]:
        """Tasks with the same key may share a run."""
        return (self.signature.name, self.outputs, *(np.shape(value)[1:] for value in self.inputs.values()))


class Batcher:
    """The queue and the thread in front of one servable."""

    def __init__(self, servable: Servable, limits: Batching, metrics: Metrics, model: str) -> None:
        """Start the thread."""
        self._servable, self._limits, self._metrics, self._model = servable, limits, metrics, model
        self._tasks: deque[_Task] = deque()
        self._rows = 0
        self._expected = 0
        self._closed = False
        self._changed = Condition()
        self._thread = Thread(target=self._work, name=f"batch-{model}", daemon=True)
        self._thread.start()

    def submit(self, signature: Signature, inputs: Mapping[str, Any], outputs: Sequence[str]) -> "Future[Arrays]":
        """Queue a request; the future holds its own rows of the outputs, or a `Refusal`.

        Raises a `Refusal` (RESOURCE_EXHAUSTED) at once when the queue is full.
        """
        task = _Task(signature, inputs, tuple(outputs), rows_of(inputs) if signature.is_batched() else 1)
        bound = self._limits.max_enqueued_batches * self._limits.max_batch_size
        with self._changed:
            if self._closed:
                raise Refusal(Code.UNAVAILABLE, "the model version is being unloaded")
            if self._tasks and self._rows + task.rows > bound:
                raise Refusal(Code.RESOURCE_EXHAUSTED, "The batch scheduling queue to which this task was submitted is full")
            self._tasks.append(task)
            self._rows += task.rows
            self._changed.notify()
        return task.future

    def close(self) -> None:
        """Finish what is queued, then stop the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(_STOP_SECONDS)

    def _work(self) -> None:
        while batch := self._next_batch():
            live = [task for task in batch if task.future.set_running_or_notify_cancel()]
            if live:
                self._run(live)
                with self._changed:
                    self._expected = sum(task.rows for task in live) + self._rows

    def _next_batch(self) -> list[_Task]:
        with self._changed:
            while not self._tasks:
                if self._closed:
                    return []
                self._changed.wait()
            self._await_company()
            return self._take()

    def _await_company(self) -> None:
        """Wait for as many rows as the last run answered and left waiting: those clients will ask again; a lone one waits for nobody."""
        wanted = min(self._expected, self._limits.max_batch_size) if self._limits.merge else 0
        deadline = time.monotonic() + self._limits.timeout_micros / 1e6
        while self._rows < wanted and not self._closed:
            left = deadline - time.monotonic()
            if left <= 0 or not self._changed.wait(left):
                return

    def _take(self) -> list[_Task]:
        first = self._tasks[0]
        batch, rows = [], 0
        if not (first.signature.is_batched() and self._limits.merge):
            batch = [first]
        else:
            for task in self._tasks:
                if task.key() != first.key() or (batch and rows + task.rows > self._limits.max_batch_size):
                    break
                batch.append(task)
                rows += task.rows
        for task in batch:
            self._tasks.popleft()
            self._rows -= task.rows
        return batch

    def _run(self, batch: list[_Task]) -> None:
        try:
            results = self._run_together(batch)
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(from_tensorflow(error))
                return
            for task in batch:
                self._run([task])
            return
        for task, result in zip(batch, results, strict=True):
            task.future.set_result(result)

    def _run_together(self, batch: list[_Task]) -> list[Arrays]:
        first = batch[0]
        if not first.signature.is_batched():
            return [self._timed(first.signature, first.inputs, first.outputs)]
        merged = {name: _concatenate([task.inputs[name] for task in batch]) for name in first.inputs}
        outputs = self._in_pieces(first, merged, sum(task.rows for task in batch))
        return _split(outputs, [task.rows for task in batch])

    def _in_pieces(self, first: _Task, inputs: Arrays, rows: int) -> Arrays:
        step = self._limits.max_batch_size
        starts = range(0, rows, step) if rows else [0]
        parts = [self._timed(first.signature, {k: v[start : start + step] for k, v in inputs.items()}, first.outputs) for start in starts]
        return {name: _concatenate([part[name] for part in parts]) for name in first.outputs}

    def _timed(self, signature: Signature, inputs: Mapping[str, Any], outputs: Sequence[str]) -> Arrays:
        began = time.perf_counter()
        result = self._servable.run(signature, inputs, outputs)
        self._metrics.ran(self._model, time.perf_counter() - began)
        return result


def _concatenate(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _split(outputs: Arrays, sizes: list[int]) -> list[Arrays]:
    ends = np.cumsum(sizes)
    for name, value in outputs.items():
        if np.ndim(value) == 0 or len(value) != ends[-1]:
            raise Refusal(Code.INTERNAL, f"output '{name}' has not one row for each row of the input")
    return [{name: value[end - size : end] for name, value in outputs.items()} for end, size in zip(ends, sizes, strict=True)]
