"""One worker of a training: `python -m components.training.distributed.worker STORE ORDER`.

$DUAL_WORKERS says where all of them listen (host:port, with commas), $JOB_COMPLETION_INDEX which one this is. Exit code 75 (EX_TEMPFAIL of
sysexits.h): a peer was lost, and the training goes on from its last checkpoint once all of them are back; 70 (EX_SOFTWARE): it crashed.
"""

import json
import os
import sys
import traceback
from collections.abc import MutableMapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from components.core.errors import DualError
from components.core.stores import Store, open_store
from components.training.distributed.order import put_progress, read_order, take_order
from components.training.train import Job, finish

PEER_LOST, CRASHED = 75, 70
WORKERS, INDEX = "DUAL_WORKERS", "JOB_COMPLETION_INDEX"


def main(store_uri: str, name: str) -> int:
    """Do this worker's part of an order; the exit code."""
    tell_tensorflow(os.environ)
    with TemporaryDirectory(prefix="dual-worker-", ignore_cleanup_errors=True) as folder:
        try:
            return _work(open_store(store_uri), name, Path(folder))
        except DualError as error:
            _say(f"Error: {error}")
            return _code(error)


def tell_tensorflow(environment: MutableMapping[str, str]) -> None:
    """Set $TF_CONFIG from what the Job says, or bring Vertex' own into the same form: the chief is the first worker.

    https://www.tensorflow.org/guide/distributed_training#TF_CONFIG,
    https://cloud.google.com/vertex-ai/docs/training/distributed-training#tf-config
    """
    if WORKERS in environment:
        workers, index = environment[WORKERS].split(","), int(environment[INDEX])
    else:
        workers, index = _of_vertex(json.loads(environment["TF_CONFIG"]))
    environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})


def _of_vertex(told: dict[str, Any]) -> tuple[list[str], int]:
    chiefs, task = told["cluster"].get("chief", []), told["task"]
    before = len(chiefs) if task["type"] == "worker" else 0
    return [*chiefs, *told["cluster"].get("worker", [])], before + int(task["index"])


def _work(store: Store, name: str, folder: Path) -> int:
    job = take_order(store, read_order(store, name), folder)
    if job.is_done():
        return 0
    # Before TensorFlow does anything else: it must know its peers from the beginning.
    from components.training import devices

    devices.make_strategy()
    if devices.is_chief():
        job = _telling(job, store, name)
    return _train(job, folder / "model")


def _telling(job: Job, store: Store, name: str) -> Job:
    from dataclasses import replace

    return replace(job, on_epoch=lambda epoch: put_progress(store, name, epoch))


def _train(job: Job, output: Path) -> int:
    import tensorflow as tf

    from components.training import devices
    from components.training.build import build_artifact

    try:
        if devices.is_chief():
            finish(job, output)
        else:
            build_artifact(job, output)
    except tf.errors.OpError as error:
        _say(f"a peer was lost, or is not where this worker is: {error.message.splitlines()[0][:300]}")
        return PEER_LOST
    return 0


def _code(error: DualError) -> int:
    from components.training.fit import WorkersDisagreeError

    return PEER_LOST if isinstance(error, WorkersDisagreeError) else error.exit_code


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _end(code: int) -> NoReturn:
    # Threads of broken collective operations would keep the process from its end.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    try:
        status = main(*sys.argv[1:])
    except BaseException:
        traceback.print_exc()
        status = CRASHED
    _end(status)
