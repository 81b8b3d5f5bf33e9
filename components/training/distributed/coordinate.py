"""The step beside its workers: it starts them, tells of each epoch, and ends them whatever happens."""

import time
from typing import Protocol, Self

from components.core.errors import DualError
from components.training.distributed.order import place_order, read_progress
from components.training.train import Job
from components.training.training import Epoch


class WorkersError(DualError):
    """The workers can't finish the training."""


class Crew(Protocol):
    """The workers of one order, where they run. Leaving the context ends all of them, and removes what was made for them."""

    def __enter__(self) -> Self:
        """Start them."""
        ...

    def __exit__(self, *_: object) -> None:
        """End them."""
        ...

    def look(self) -> None:
        """Start again who may be, say what is wrong; `WorkersError` if it can't become right."""
        ...

    pause: float
    """Seconds between two looks."""
    restarts: list[str]
    """Which worker was started again, and why: a sentence each."""

    def describe(self) -> str:
        """How they stand, in one sentence."""
        ...


def train_by_workers(job: Job) -> list[str]:
    """Have a training done by several workers; its course, a sentence each. Its result is in the store then, where `finish` takes it from.

    Repeated after a kill it goes on from the last checkpoint. Raises `WorkersError` if they can't finish it.
    """
    order = place_order(job)
    course = f"{job.settings.workers.count} workers train together ({job.settings.workers.target})"
    job.record.say(course)
    with _crew(job, order) as crew:
        _watch(job, order, crew)
        return [course, *crew.restarts]


def _crew(job: Job, order: str) -> Crew:
    if job.settings.workers.target == "processes":
        from components.training.distributed.processes import Processes

        return Processes(job, order)
    if job.settings.workers.target == "vertex":
        from components.training.distributed.pools import Pools

        return Pools(job, order)
    from components.training.distributed.pods import Pods

    return Pods(job, order)


def _watch(job: Job, order: str, crew: Crew) -> None:
    store, chosen = job.record.store, job.settings.workers
    seen, since, limit = read_progress(store, order), time.monotonic(), chosen.start_within
    while not job.is_done():
        crew.look()
        if (now := read_progress(store, order)) != seen and now is not None:
            job.record.say(_line(now))
            seen, since, limit = now, time.monotonic(), chosen.stalled_after
        if time.monotonic() - since > limit:
            fix = "Look at their logs; raise workers.stalled_after (or start_within) if an epoch takes that long"
            raise WorkersError(f"no epoch was finished for {limit:g} s: {crew.describe()}", where=job.record.step, fix=fix)
        time.sleep(crew.pause)


def _line(epoch: Epoch) -> str:
    return (
        f"{epoch.phase} epoch {epoch.epoch + 1}: loss {epoch.loss:.3f} accuracy {epoch.accuracy:.3f}, "
        f"validation loss {epoch.val_loss:.3f} accuracy {epoch.val_accuracy:.3f}, {epoch.seconds:.1f} s"
    )
