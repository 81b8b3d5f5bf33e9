"""The cloud half of the pair as the publication needs it: is it in force, take it back, let it finish."""

from typing import Protocol

from components.core.errors import ConflictError, RolloutError
from components.core.stores import Store
from serving.rollout.cluster import whereabouts
from serving.rollout.cluster.settings import ClusterSettings
from serving.rollout.cluster.state import ClusterRollout, Say
from serving.rollout.labels import abort_rollout
from serving.rollout.servers import close_all, running_servers
from serving.rollout.state import read_rollout, utc_now

_AGAIN = "Run again: both halves are published, or none"


class CloudHalf(Protocol):
    """One place where cloud models are served."""

    otherwise: str
    """What happens to a rollout that could not be taken back."""

    def in_force(self, release: str, run_id: str) -> int:
        """The channel sequence that this run's rollout started from, if its candidate has the live traffic now.

        Raises `ConflictError` if another rollout superseded it, `RolloutError` if it is not in force.
        """
        ...

    def take_back(self, run_id: str, reason: str) -> str:
        """Bring live traffic back to the promoted release, if this run's rollout moved it; the release taken back, or empty."""
        ...

    def finish(self, release: str, run_id: str) -> None:
        """After the publication: what is left to do for the cloud half."""
        ...


class LocalHalf:
    """The servers of this machine, which follow the store."""

    otherwise = "Servers fall back by themselves at its deadline."

    def __init__(self, store: Store) -> None:
        """The servers that follow `store`."""
        self._store = store

    def in_force(self, release: str, run_id: str) -> int:
        """As `CloudHalf` says."""
        found = read_rollout(self._store)
        rollout = found[0] if found else None
        if rollout is not None and rollout.is_alive(utc_now()) and (rollout.release, rollout.run_id) != (release, run_id):
            raise _superseded(rollout.release, rollout.run_id, release)
        if rollout is None or rollout.release != release:
            raise _not_in_force("never began", release)
        if rollout.phase != "promoted" or not rollout.is_alive(utc_now()):
            raise _not_in_force(f"is not in force ({rollout.phase}, until {rollout.deadline})", release)
        return rollout.sequence

    def take_back(self, run_id: str, reason: str) -> str:
        """As `CloudHalf` says."""
        servers = running_servers(self._store)
        try:
            rollout = abort_rollout(self._store, servers, run_id=run_id, reason=reason)
        finally:
            close_all(servers)
        return rollout.release if rollout else ""

    def finish(self, release: str, run_id: str) -> None:
        """Nothing: servers follow the channel."""


class ClusterHalf:
    """A cluster, whose state machine waits for the publication before the old pods go."""

    otherwise = "The next run, or `dual rollout resume`, brings it to its end."

    def __init__(self, store: Store, name: str, settings: ClusterSettings, say: Say) -> None:
        """The model `name` on the settings' cluster."""
        self._store, self._name, self._settings, self._say = store, name, settings, say
        self._namespace = settings.namespace

    def in_force(self, release: str, run_id: str) -> int:
        """As `CloudHalf` says."""
        state = self._state()
        if state is not None and not state.is_over() and (state.candidate.release, state.run_id) != (release, run_id):
            raise _superseded(state.candidate.release, state.run_id, release)
        if state is None or state.candidate.release != release:
            raise _not_in_force("never began", release)
        if state.phase != "drain":
            raise _not_in_force(f"is not in force ({state.phase})", release)
        whereabouts.note(self._store, release, self._name, self._namespace, self._settings)
        return state.sequence

    def take_back(self, run_id: str, reason: str) -> str:
        """As `CloudHalf` says."""
        from serving.rollout.cluster.actions import abort

        state = abort(self._store, self._name, self._settings, run_id=run_id, reason=reason, say=self._say, only_run=run_id)
        return state.candidate.release if state else ""

    def finish(self, release: str, run_id: str) -> None:
        """Wait until the old pods are gone."""
        from serving.rollout.cluster.actions import finish

        finish(self._store, release, self._name, self._settings, run_id=run_id, say=self._say)

    def _state(self) -> ClusterRollout | None:
        from serving.rollout.cluster.actions import reader

        api, _, book = reader(self._name, self._settings)
        self._namespace = api.namespace
        return book.read()


class EndpointHalf:
    """A Vertex endpoint, whose state machine waits for the publication before the old model is undeployed."""

    otherwise = "The next run, or `dual rollout resume --target vertex`, brings it to its end."

    def __init__(self, store: Store, say: Say) -> None:
        """The endpoint of the rollout whose state is in `store`."""
        self._store, self._say = store, say

    def in_force(self, release: str, run_id: str) -> int:
        """As `CloudHalf` says."""
        from serving.rollout.endpoint.state import Book

        state = Book(self._store).read()
        if state is not None and not state.is_over() and (state.candidate.release, state.run_id) != (release, run_id):
            raise _superseded(state.candidate.release, state.run_id, release)
        if state is None or state.candidate.release != release:
            raise _not_in_force("never began", release)
        if state.phase != "drain":
            raise _not_in_force(f"is not in force ({state.phase})", release)
        return state.sequence

    def take_back(self, run_id: str, reason: str) -> str:
        """As `CloudHalf` says."""
        from serving.rollout.endpoint.actions import abort

        state = abort(self._store, run_id=run_id, reason=reason, say=self._say, only_run=run_id)
        return state.candidate.release if state else ""

    def finish(self, release: str, run_id: str) -> None:
        """Wait until the old model is undeployed."""
        from serving.rollout.endpoint.actions import finish

        finish(self._store, release, run_id=run_id, say=self._say)


def _superseded(other: str, run: str, release: str) -> ConflictError:
    what = f"the rollout of {other} (run {run}) has superseded this one"
    return ConflictError(what, where=f"release {release}", fix="Run again once that one is done")


def _not_in_force(state: str, release: str) -> RolloutError:
    return RolloutError(f"the rollout of the cloud half {state}", where=f"release {release}", fix=_AGAIN)
