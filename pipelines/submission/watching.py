"""Following a run until it is over: one line for each change, and why nothing changes."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from components.core.errors import UnavailableError
from components.report.story import EVERY_STEP
from pipelines.progress import Progress
from pipelines.submission.backend import Backend, Run, State, Task

PATIENCE = 900.0
"""Seconds without one answer from the service until watching gives up; the run goes on."""
_LOOK_EVERY = 15.0
"""Seconds between two looks at the pods: they are many requests, and what they show does not change by the second."""

_WORDS: Mapping[State, str] = {
    "cached": "finished: from the cache",
    "skipped": "finished: skipped",
    "terminated": "failed: terminated",
    "pending": "waits for its pod",
}
"""What the display takes for an end begins with `finished` or `failed`."""


@dataclass
class Watcher:
    """Shows what is new about a run."""

    backend: Backend
    progress: Progress
    remark: Callable[[str], str] = lambda _: ""
    """What the store's record says of a step that has just ended; empty if nothing."""
    _states: dict[str, str] = field(default_factory=dict)
    _told: set[tuple[str, str]] = field(default_factory=set)
    _looked: float = 0.0

    def follow(self, run: Run, every: float, *, patience: float = PATIENCE) -> Run:
        """The run when it is over; asks each `every` seconds. Raises what the service says, `UnavailableError` after `patience` seconds.

        A run that was seen being terminated ends as terminated, whatever the service calls it afterwards.
        """
        answered = time.monotonic()
        while True:
            try:
                run = _as_seen(run, self.backend.run(run.id))
            except UnavailableError as error:
                if time.monotonic() - answered > patience:
                    raise
                self._warn("", f"no answer, still trying: {error.what}")
            else:
                answered = time.monotonic()
                self._show(run)
                if run.is_over():
                    return run
            time.sleep(every)

    def _show(self, run: Run) -> None:
        for task in run.tasks:
            if self._states.get(task.name) != task.state:
                self._states[task.name] = task.state
                self.progress.line(task.name, self._said(task))
        if not run.is_over() and time.monotonic() - self._looked > _LOOK_EVERY:
            self._looked = time.monotonic()
            for step, reason in self.backend.troubles(run):
                self._warn(step, reason)

    def _said(self, task: Task) -> str:
        took = f" in {seconds:.0f} s" if (seconds := task.seconds()) is not None else ""
        if task.state == "succeeded":
            return f"finished{took}{self._remarked(task.name)}"
        if task.state == "failed":
            return f"failed{took}{self._remarked(task.name) or (f': {task.error}' if task.error else '')}"
        return _WORDS.get(task.state, task.state) + (took if task.state == "terminated" else "")

    def _remarked(self, step: str) -> str:
        said = self.remark(step)
        return f": {said}" if said else ""

    def _warn(self, step: str, text: str) -> None:
        if (step, text) in self._told:
            return
        self._told.add((step, text))
        if step in EVERY_STEP:
            self.progress.line(step, f"warning: {text}")
        else:
            # The driver of a group, or nobody's pod.
            self.progress.note(f"warning: {step}: {text}" if step else f"warning: {text}")


def _as_seen(before: Run, run: Run) -> Run:
    return replace(run, state="terminated") if before.state == "terminating" and run.state == "failed" else run
