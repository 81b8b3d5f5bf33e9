"""Where a pipeline runs: one trace per target, because what a task needs is said differently to each."""

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What one task asks of its machine."""

    cpu: str = "1"
    """Kubernetes quantity of cores."""
    memory: str = "2G"
    """Kubernetes quantity of bytes."""
    accelerator: bool = False
    """Whether the task trains on a GPU where there is one."""


class Target(Protocol):
    """One place to run."""

    name: str

    def place(self, task: Any, needs: Needs) -> None:
        """Apply `needs` to a KFP task."""
        ...


class Local:
    """This machine: KFP's local runner ignores resources (with a warning), so none are set."""

    name = "local"

    def place(self, task: Any, needs: Needs) -> None:
        """Only switch KFP's cache off: results are cached in the store (docs/decisions/0001-step-cache.md)."""
        del needs
        task.set_caching_options(False)
