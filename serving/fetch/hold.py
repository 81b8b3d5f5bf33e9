"""Beside a server in the same pod: what the live Service says is fetched, loaded, labelled, and unloaded again.

Nothing is remembered but the record that was read last. Each look compares what is wanted with what the server says, does what can be
done now, and never waits for a load: so a holder may be killed or stopped at any moment, and a pod, a server or a holder that starts anew
comes to the same end by itself. What serves is never taken away before what is wanted serves.
"""

import shutil
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from components.core.errors import DataError, DualError, UsageError
from components.core.meter import Say
from serving.fetch.order import HoldOrder, Order
from serving.fetch.stage import Patience, stage
from serving.rollout.cluster.holding import LABELS, STABLE_LABEL, Holding, holdings_of, refusal_of

_SOON, _LATER = 0.5, 5.0
"""Seconds to the next look: while something is under way, and while all is as it should be."""
_RESTLESS = 120
"""After so many looks in a row that did not come to an end one may be late: something has to be repaired first."""
_RETRY_SECONDS = 20.0
_LOAD_SECONDS = 900.0
"""TF Serving answers the first configuration that names a model only when that is loaded."""


class ModelServer(Protocol):
    """What is asked of the server: `serving.rollout.servers.Server`."""

    def states(self) -> dict[int, tuple[str, str]]:
        """Version → (state, why it could not be loaded)."""
        ...

    def label_version(self, label: str) -> int | None:
        """The version that a label selects."""
        ...

    def reload(self, versions: list[int], labels: Mapping[str, int], timeout: float) -> None:
        """Serve these versions with these labels."""
        ...


@dataclass
class Stager:
    """Brings versions into the model folder, one at a time and in the background: a label must not wait for a download."""

    order: HoldOrder
    say: Say
    patience: Patience = field(default_factory=Patience)
    retry_seconds: float = _RETRY_SECONDS
    _busy: threading.Thread | None = field(default=None, init=False)
    _not_before: dict[int, float] = field(default_factory=dict, init=False)

    def staged(self) -> set[int]:
        """The versions that are there, whole and verified."""
        folder = self.order.model_dir
        return {int(path.name) for path in folder.iterdir() if path.name.isdigit()} if folder.is_dir() else set()

    def fetch(self, version: int, order: Order) -> None:
        """Begin to fetch one, unless another one is under way or this one failed a moment ago."""
        if (self._busy and self._busy.is_alive()) or time.monotonic() < self._not_before.get(version, 0.0):
            return
        self._busy = threading.Thread(target=self._fetch, args=(version, order), name="fetch", daemon=True)
        self._busy.start()

    def remove(self, kept: Collection[int]) -> None:
        """Delete the others from the disk."""
        for version in self.staged() - set(kept):
            shutil.rmtree(self.order.model_dir / str(version), ignore_errors=True)

    def _fetch(self, version: int, order: Order) -> None:
        try:
            stage(order, self.say, self.patience, beside=True)
        except (DataError, UsageError) as error:
            self.say(f"{refusal_of(order.release or order.sha256)}{error}")
            self._not_before[version] = time.monotonic() + self.retry_seconds
        except DualError as error:
            self.say(f"error: {error} Trying again in {self.retry_seconds:g} s")
            self._not_before[version] = time.monotonic() + self.retry_seconds


@dataclass
class Holder:
    """One server and its model folder."""

    server: ModelServer
    stager: Stager

    def look(self, wanted: Mapping[int, Order], labels: Mapping[str, int]) -> bool:
        """Do what can be done now so that the server has these versions, the most wanted first, and these labels; True if it has.

        Raises `DualError` if the server does not answer, or refuses.
        """
        states = self.server.states()
        live = {version for version, (state, _) in states.items() if state != "END"}
        available = {version for version, (state, _) in states.items() if state == "AVAILABLE"}
        now = {label: version for label in LABELS if (version := self.server.label_version(label)) is not None}
        self._stage(wanted)
        versions, due = self._versions(wanted, labels, live, available), _labels(labels, now, available)
        if due != now:
            # Before a version goes nobody is led to it any more.
            self.server.reload([*versions, *sorted(live - set(versions))], due, _LOAD_SECONDS)
            return False
        if live - set(versions) or set(versions) - states.keys() or _left(versions, states):
            self.server.reload(versions, due, _LOAD_SECONDS)
            return False
        if due == labels and set(wanted) == available:
            self.stager.remove(wanted)
            return True
        return False

    def _stage(self, wanted: Mapping[int, Order]) -> None:
        staged = self.stager.staged()
        for version, order in wanted.items():
            if version not in staged:
                return self.stager.fetch(version, order)
        return None

    def _versions(self, wanted: Mapping[int, Order], labels: Mapping[str, int], live: set[int], available: set[int]) -> list[int]:
        """What is to be loaded now: the stable version alone where nothing serves, then the rest; what else is loaded stays until then."""
        staged, stable = self.stager.staged(), labels[STABLE_LABEL]
        ready = [version for version in wanted if version in staged or version in live]
        if stable not in available:
            first = [version for version in ready if version == stable or available]
            return [*first, *sorted(live - set(first))]
        return ready


def _labels(wanted: Mapping[str, int], now: Mapping[str, int], available: set[int]) -> dict[str, int]:
    """A label moves to a version that is available and nowhere else; `stable` stays where it is rather than lead nowhere."""
    due = {label: version for label, version in wanted.items() if version in available}
    if STABLE_LABEL not in due and now.get(STABLE_LABEL) in available:
        due[STABLE_LABEL] = now[STABLE_LABEL]
    return due


def _left(versions: list[int], states: Mapping[int, tuple[str, str]]) -> bool:
    """Whether one of the versions ended, and not because it can't be loaded: it was unloaded, and is wanted again."""
    return any(states.get(version, ("", "")) == ("END", "") for version in versions)


def _never() -> bool:
    return False


def hold(order: HoldOrder, say: Say, ended: Callable[[], bool] = _never) -> None:
    """Hold what the record says, or a candidate alone, for as long as the pod lives.

    Raises `UsageError` if there is no way to the cluster, and what `stage` raises for a candidate: whoever checks it must hear of that.
    """
    from serving.rollout.servers import Server, ServerEntry

    if order.candidate:
        stage(order.candidate, say, Patience())

    entry = ServerEntry(
        id="pod",
        pid=0,
        host="127.0.0.1",
        rest_port=order.rest_port,
        grpc_port=order.grpc_port,
        model_dir=str(order.model_dir),
        name=order.name,
    )
    record = _Fixed(order.candidate) if order.candidate else _Record(order, say)
    keep_up(Holder(Server(entry), Stager(order, say)), record, say, ended)


class Record(Protocol):
    """What is to be held."""

    def read(self) -> tuple[dict[int, Order], dict[str, int]] | None:
        """Version → where it comes from, and label → version; None before anybody said it."""
        ...

    def wait(self, seconds: float) -> None:
        """Return after so many seconds, or as soon as it says something else."""
        ...


@dataclass
class _Fixed:
    """A candidate alone, with the label that live traffic would ask for."""

    order: Order

    def read(self) -> tuple[dict[int, Order], dict[str, int]]:
        from components.core.candidate import candidate_version

        version = candidate_version(self.order.sha256)
        return {version: self.order}, {STABLE_LABEL: version}

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)


class _Record:
    """The record on the live Service; what was read last is what counts while nothing can be read."""

    def __init__(self, order: HoldOrder, say: Say) -> None:
        from serving.rollout.cluster.api import connect
        from serving.rollout.cluster.watch import Doorbell

        self._order, self._say = order, _Once(say)
        self._api = connect(patience=3.0)
        self._bell, self._version = Doorbell(self._api, "Service", order.name), ""
        self._last: Holding | None = None

    def read(self) -> tuple[dict[int, Order], dict[str, int]] | None:
        try:
            service = self._api.get("Service", self._order.name)
            self._version = service["metadata"]["resourceVersion"]
            found = holdings_of(service).get(self._order.host)
            if found is None:
                self._say(f"Service {self._order.name} says nothing of {self._order.host}: {self._stays()}")
            self._last = found or self._last
        except DualError as error:
            self._say(f"{error} Until that is over: {self._stays()}")
        if self._last is None:
            return None
        orders = {version: self._order.of(release, self._last.releases[release]) for version, release in self._last.versions().items()}
        return orders, self._last.labels()

    def wait(self, seconds: float) -> None:
        # A look that comes soon is cheaper than a watch.
        if seconds > _SOON and self._version:
            self._bell.wait(self._version, seconds)
        else:
            time.sleep(seconds)

    def _stays(self) -> str:
        return "what is held stays" if self._last else "nothing is loaded before it does"


def keep_up(holder: Holder, record: Record, say: Say, ended: Callable[[], bool] = _never) -> None:
    """Look again and again, soon while there is something to do, until `ended`; what goes wrong is said, and tried again."""
    once, restless = _Once(say), 0
    while not ended():
        found, settled = record.read(), False
        if found is not None:
            wanted, labels = found
            try:
                settled = holder.look(wanted, labels)
            except DualError as error:
                once(f"waiting for the server: {error}")
            if settled:
                once(f"held: {', '.join(f'{label} is version {version} ({version:012x})' for label, version in labels.items())}")
        restless = 0 if settled else restless + 1
        record.wait(_LATER if settled or found is None or restless > _RESTLESS else _SOON)


class _Once:
    """Says nothing twice in a row."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._said = say, ""

    def __call__(self, text: str) -> None:
        if text != self._said:
            self._say(text)
            self._said = text
