"""Dynamic batching, with a model that only notes what it was asked."""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from serving.server.batching import Batcher
from serving.server.metrics import Metrics
from serving.server.options import Batching
from serving.server.servable import Signature, TensorSpec
from serving.server.status import Code, Refusal


class NotedModel:
    """Adds one; waits at its gate; refuses rows that are negative."""

    def __init__(self) -> None:
        """Start with the gate open."""
        self.sizes: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def run(self, signature: Signature, inputs: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
        """Note the number of rows."""
        self.gate.wait(10)
        self.sizes.append(len(inputs["x"]))
        if (inputs["x"] < 0).any():
            raise tf.errors.InvalidArgumentError(None, None, "negative")
        return dict.fromkeys(outputs, inputs["x"] + 1)


def signature(name: str = "s", batched: bool = True) -> Signature:
    spec = TensorSpec("x:0", tf.float32, (-1 if batched else 3, -1))
    return Signature(name, "tensorflow/serving/predict", {"x": spec}, {"y": spec})


def batcher(model: Any, **limits: Any) -> Batcher:
    return Batcher(model, Batching(**limits), Metrics(), "m")


def rows(value: float, count: int = 1, width: int = 2) -> dict[str, Any]:
    return {"x": np.full((count, width), value, np.float32)}


def queue_behind_a_closed_gate(model: NotedModel, queue: Batcher, requests: list[tuple[Signature, dict[str, Any]]]) -> list["Future[Any]"]:
    model.gate.clear()
    first = queue.submit(signature(), rows(0), ["y"])
    while queue._tasks:
        pass
    futures = [queue.submit(each, inputs, ["y"]) for each, inputs in requests]
    model.gate.set()
    assert first.result(5)
    return futures


def test_waiting_requests_share_a_run_and_get_their_own_rows() -> None:
    model = NotedModel()
    queue = batcher(model, timeout_micros=0)
    futures = queue_behind_a_closed_gate(model, queue, [(signature(), rows(n, count=n)) for n in (1, 2, 3)])
    assert [future.result(5)["y"].tolist() for future in futures] == [[[n + 1.0] * 2] * n for n in (1, 2, 3)]
    assert model.sizes == [1, 6]
    queue.close()


def test_signatures_and_shapes_are_not_mixed() -> None:
    model = NotedModel()
    queue = batcher(model, timeout_micros=0)
    requests = [(signature(), rows(1)), (signature("t"), rows(1)), (signature("t"), rows(1, width=3)), (signature("t"), rows(2, width=3))]
    for future in queue_behind_a_closed_gate(model, queue, requests):
        future.result(5)
    assert model.sizes == [1, 1, 1, 2]
    queue.close()


def test_a_run_holds_at_most_the_largest_batch_and_a_larger_request_is_cut() -> None:
    model = NotedModel()
    queue = batcher(model, timeout_micros=0, max_batch_size=4)
    futures = queue_behind_a_closed_gate(
        model, queue, [(signature(), rows(1, count=3)), (signature(), rows(1, count=2)), (signature(), rows(5, count=9))]
    )
    assert [len(future.result(5)["y"]) for future in futures] == [3, 2, 9]
    assert model.sizes == [1, 3, 2, 4, 4, 1]
    queue.close()


def test_a_bad_request_does_not_fail_its_neighbours() -> None:
    model = NotedModel()
    queue = batcher(model, timeout_micros=0)
    good, bad, other = queue_behind_a_closed_gate(model, queue, [(signature(), rows(n)) for n in (1, -1, 2)])
    with pytest.raises(Refusal, match="negative") as caught:
        bad.result(5)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert good.result(5)["y"].tolist() == [[2.0, 2.0]]
    assert other.result(5)["y"].tolist() == [[3.0, 3.0]]
    queue.close()


def test_a_full_queue_refuses_at_once() -> None:
    model = NotedModel()
    queue = batcher(model, timeout_micros=0, max_batch_size=2, max_enqueued_batches=2)
    requests = [(signature(), rows(n)) for n in range(4)]
    model.gate.clear()
    queue.submit(signature(), rows(0), ["y"])
    while queue._tasks:
        pass
    futures = [queue.submit(each, inputs, ["y"]) for each, inputs in requests]
    with pytest.raises(Refusal, match="queue to which this task was submitted is full") as caught:
        queue.submit(signature(), rows(0), ["y"])
    assert (caught.value.code, caught.value.http) == (Code.RESOURCE_EXHAUSTED, 429)
    model.gate.set()
    assert all(future.result(5) for future in futures)
    queue.close()


def test_a_signature_without_a_batch_dimension_runs_alone() -> None:
    model = NotedModel()
    queue = batcher(model, timeout_micros=0)
    fixed = signature(batched=False)
    for future in queue_behind_a_closed_gate(model, queue, [(fixed, rows(1, count=3)), (fixed, rows(2, count=3))]):
        assert len(future.result(5)["y"]) == 3
    assert model.sizes == [1, 3, 3]
    queue.close()


def test_without_merging_each_request_runs_alone() -> None:
    model = NotedModel()
    queue = batcher(model, merge=False)
    for future in queue_behind_a_closed_gate(model, queue, [(signature(), rows(1))] * 3):
        future.result(5)
    assert model.sizes == [1, 1, 1, 1]
    queue.close()


def test_a_cancelled_request_is_not_run() -> None:
    model = NotedModel()
    queue = batcher(model, timeout_micros=0)
    model.gate.clear()
    first = queue.submit(signature(), rows(0), ["y"])
    while queue._tasks:
        pass
    gone = queue.submit(signature(), rows(0), ["y"])
    assert gone.cancel()
    model.gate.set()
    first.result(5)
    queue.close()
    assert model.sizes == [1]


def test_a_run_waits_for_the_clients_of_the_last_one() -> None:
    model = NotedModel()
    queue = batcher(model, timeout_micros=5_000_000)
    futures = queue_behind_a_closed_gate(model, queue, [(signature(), rows(n)) for n in range(3)])
    # The first client's next request is all that is missing: no need to wait for the timeout.
    futures.append(queue.submit(signature(), rows(9), ["y"]))
    assert [future.result(2)["y"][0][0] for future in futures] == [1.0, 2.0, 3.0, 10.0]
    assert model.sizes == [1, 4]
    queue.close()


def test_a_run_waits_no_longer_than_its_timeout() -> None:
    model = NotedModel()
    queue = batcher(model, timeout_micros=300_000)
    began = time.monotonic()
    for future in queue_behind_a_closed_gate(model, queue, [(signature(), rows(n)) for n in range(3)]):
        future.result(5)
    assert 0.25 < time.monotonic() - began < 3
    assert model.sizes == [1, 3]
    queue.close()


def test_a_lone_client_waits_for_nobody() -> None:
    model = NotedModel()
    queue = batcher(model, timeout_micros=1_000_000)
    began = time.monotonic()
    for _ in range(5):
        queue.submit(signature(), rows(1), ["y"]).result(5)
    assert time.monotonic() - began < 0.5
    queue.close()


def test_after_closing_nothing_is_taken_but_what_waits_is_finished() -> None:
    model = NotedModel()
    queue = batcher(model)
    model.gate.clear()
    waiting = queue.submit(signature(), rows(1), ["y"])
    threading.Timer(0.2, model.gate.set).start()
    queue.close()
    assert waiting.result(0)["y"].tolist() == [[2.0, 2.0]]
    with pytest.raises(Refusal, match="being unloaded"):
        queue.submit(signature(), rows(1), ["y"])
