"""What `dual submit`, `dual runs` and `dual schedule` ask of a place that runs pipelines, in words that no service owns.

A backend (one class for each service: Kubeflow, Vertex) turns these into its protocol, and its errors into ours. Times are aware UTC.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, Literal, Protocol

from components.core.errors import UsageError, missing_extra
from pipelines.submission.package import Inputs, Package
from pipelines.submission.trigger import Plan

State = Literal[
    "pending", "running", "paused", "succeeded", "failed", "skipped", "cached", "terminating", "terminated", "unknown"
]  # fmt: skip
OVER: frozenset[State] = frozenset({"succeeded", "failed", "skipped", "cached", "terminated"})
_BACKENDS = {"kubeflow": "pipelines.submission.kubeflow.service", "vertex": "pipelines.submission.vertex.service"}


@dataclass(frozen=True, kw_only=True)
class Task:
    """One step of a run, whatever number of pods the service made of it."""

    name: str
    """The step's name as in the flow (`train_cloud`)."""
    state: State
    started: datetime | None = None
    ended: datetime | None = None
    error: str = ""
    pods: tuple[str, ...] = ()

    def seconds(self) -> float | None:
        """How long it has run, until now if it still does; None before it started."""
        return seconds_between(self.started, self.ended)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a pipeline."""

    id: str
    name: str
    state: State
    link: str = ""
    """Address of the page that shows it; empty if the service has none that is known."""
    experiment: str = ""
    pipeline: str = ""
    version: str = ""
    schedule: str = ""
    """Id of the schedule that started it, or empty."""
    created: datetime | None = None
    ended: datetime | None = None
    archived: bool = False
    error: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[Task, ...] = ()
    history: tuple[tuple[State, datetime | None], ...] = ()

    def is_over(self) -> bool:
        """Whether nothing more will happen unless somebody retries it."""
        return self.state in OVER

    def seconds(self) -> float | None:
        """How long it has taken, until now if it still runs."""
        return seconds_between(self.created, self.ended)


@dataclass(frozen=True, kw_only=True)
class Version:
    """A package that the service has, or that goes with each run, and can be run any number of times."""

    id: str
    name: str
    pipeline: str
    """Id of the pipeline that it is a version of."""
    inputs: Inputs
    created: bool = False
    """Whether it was not there before."""
    link: str = ""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to start: parameters are checked already (`parameters.check`)."""

    experiment: str
    name: str
    parameters: Mapping[str, Any]
    service_account: str = ""
    pipeline_root: str = ""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A standing order, and when it comes due."""

    id: str
    name: str
    order: Order
    version: str
    """Id of the version that it runs."""
    plan: Plan
    enabled: bool
    created: datetime | None = None
    link: str = ""


@dataclass(frozen=True, kw_only=True)
class Query:
    """Which runs to list; empty strings mean any."""

    experiment: str = ""
    name: str = ""
    """Part of the run's name."""
    state: str = ""
    archived: bool = False
    limit: int = 20
    page: str = ""
    """What a former answer gave as `following`."""


@dataclass(frozen=True)
class Page:
    """Some runs, newest first, and the token for more (empty: there are no more)."""

    runs: tuple[Run, ...]
    following: str = ""


class Backend(Protocol):
    """A place that runs pipelines. Every method raises `DualError`s; `UnavailableError` if asking again later may help."""

    target: str
    zoned: bool
    """Whether each schedule says the time zone that it is in."""

    def address(self) -> str:
        """Where the service is, and as whom it is asked, in a few words without any secret."""
        ...

    def ensure_version(self, package: Package) -> Version:
        """The version that holds exactly this package; made if it isn't there."""
        ...

    def find_version(self, pipeline: str, name: str = "") -> Version:
        """A version by its pipeline's name and its own (empty: the newest); `MissingError` if there is none."""
        ...

    def start(self, version: Version, order: Order) -> Run:
        """Start a run."""
        ...

    def run(self, run_id: str) -> Run:
        """A run with its tasks as they stand; `MissingError` if there is none."""
        ...

    def parameters(self, run: Run) -> Mapping[str, Any]:
        """The run's parameters with the pipeline's defaults for those that nobody gave."""
        ...

    def runs(self, query: Query) -> Page:
        """Runs without their tasks."""
        ...

    def retry(self, run_id: str) -> None:
        """Run the failed steps of a failed run again."""
        ...

    def terminate(self, run_id: str) -> None:
        """End a run that is not over."""
        ...

    def archive(self, run_id: str, *, back: bool = False) -> None:
        """Take a run out of the lists, or back into them."""
        ...

    def delete(self, run_id: str) -> None:
        """Remove a run that is over from the service; its records in the store stay."""
        ...

    def troubles(self, run: Run) -> list[tuple[str, str]]:
        """(step, reason) for what keeps the run from going on and that the service itself does not report."""
        ...

    def blindness(self) -> str:
        """Why `troubles` sees nothing, after it was asked; empty if it sees."""
        ...

    def close(self) -> None:
        """End what was opened to reach the service."""
        ...

    def schedules(self) -> list[Schedule]:
        """Every schedule, oldest first."""
        ...

    def create_schedule(self, name: str, version: Version, order: Order, plan: Plan, *, enabled: bool) -> Schedule:
        """Make a schedule; the service may allow several of one name."""
        ...

    def enable_schedule(self, schedule_id: str, *, enabled: bool) -> None:
        """Resume or pause a schedule."""
        ...

    def delete_schedule(self, schedule_id: str) -> None:
        """Remove a schedule; the runs that it started stay."""
        ...


def open_backend(target: str, **options: Any) -> Backend:
    """The backend of a target; `options` are its connection's (`Connection` in the target's folder)."""
    if target not in _BACKENDS:
        fix = f"Targets that can be submitted to: {', '.join(_BACKENDS)}; on this machine use dual run"
        raise UsageError(f"there is no backend for the target '{target}'", where="--target", fix=fix)
    try:
        module: Any = import_module(_BACKENDS[target])
    except ModuleNotFoundError as error:
        raise missing_extra("pipeline", error.name or "kfp") from None
    return module.open_service(**options)


def seconds_between(started: datetime | None, ended: datetime | None) -> float | None:
    """Seconds from one time to the other, or to now; None if nothing has started."""
    if started is None:
        return None
    return max(0.0, ((ended or datetime.now(UTC)) - started).total_seconds())
