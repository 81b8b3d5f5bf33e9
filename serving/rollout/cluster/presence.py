"""Signs of life of the process that runs a rollout: a Lease that it renews, so that a busy process can be told from a dead one.

Epochs decide who may write; the Lease says only whether somebody is there. It is written when a process sets about a rollout that is not
over, and then every third of the plan's `alive_within`; never while nothing is in progress. Who watches counts by its own clock since it
last saw a change, and never compares times of two machines: https://pkg.go.dev/k8s.io/client-go/tools/leaderelection does the same.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil

from components.core.errors import DualError, MissingObjectError
from serving.rollout.cluster.api import Api, ChangedError, Json
from serving.rollout.cluster.names import EPOCH, MANAGED_BY, MANAGER, Names
from serving.rollout.cluster.objects import stamp_of
from serving.rollout.cluster.state import ClusterRollout, Say

_ATTEMPTS = 5
_SHARE = 3
"""Of three renewals two may be lost."""


class Presence:
    """What one process shows of itself while it runs a rollout under one epoch."""

    def __init__(self, api: Api, names: Names, state: ClusterRollout, say: Say) -> None:
        """Nothing is written yet; the run, the epoch and the plan are the state's."""
        self._api, self._names, self._say = api, names, say
        self._epoch, self._holder, self._within = state.epoch, state.run_id, state.plan.alive_within
        self._lock = threading.Lock()
        self._written: Json | None = None
        self._ended: threading.Event | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show it while the block runs; a block inside of another one changes nothing. `ClusterError` if that is not allowed.

        After the block the Lease is left to expire: whether it ended well is in the state.
        """
        if self._ended is not None:
            yield
            return
        if self._written is None:
            self._write(self._holder)
        self._ended = ended = threading.Event()
        threading.Thread(target=self._renew, args=(ended,), name="presence", daemon=True).start()
        try:
            yield
        finally:
            ended.set()
            self._ended = None

    def release(self) -> None:
        """After the blocks: nobody runs the rollout now, and that is right, because it waits for somebody else."""
        with self._lock:
            self._write("")

    def _renew(self, ended: threading.Event) -> None:
        while not ended.wait(self._within / _SHARE):
            with self._lock:
                if ended.is_set():
                    return
                try:
                    self._write(self._holder)
                except DualError as error:
                    # The rollout's own calls will say so too, and are what decides.
                    self._say(f"this process can't show that it lives: {error}")

    def _write(self, holder: str) -> None:
        """Write the Lease, unless a newer epoch has it: then there is nothing to show any more."""
        for _ in range(_ATTEMPTS):
            found = self._written or self._api.find("Lease", self._names.lease)
            if stamp_of(found) > self._epoch:
                return
            try:
                self._written = self._send(found, holder)
                return
            except (ChangedError, MissingObjectError):
                self._written = None

    def _send(self, found: Json | None, holder: str) -> Json:
        metadata: Json = {
            "name": self._names.lease,
            "namespace": self._names.namespace,
            "labels": {**self._names.labels, MANAGED_BY: MANAGER},
            "annotations": {EPOCH: str(self._epoch)},
        }
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": holder, "leaseDurationSeconds": ceil(self._within), "renewTime": now}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        if found is None:
            return self._api.create("Lease", body)
        metadata["resourceVersion"] = found["metadata"]["resourceVersion"]
        return self._api.replace("Lease", body)


def is_held(lease: Json | None, state: ClusterRollout) -> bool:
    """Whether the Lease says that a process of the state's epoch runs the rollout; it may have died since."""
    return lease is not None and stamp_of(lease) == state.epoch and bool((lease.get("spec") or {}).get("holderIdentity"))


@dataclass
class Vigil:
    """What one observer has seen of the process that runs a rollout."""

    clock: Callable[[], float] = time.monotonic
    """Seconds; only differences are used."""
    moved: bool = field(default=False, init=False)
    """Whether a sign of life came while this observer watched."""
    _seen: tuple[ClusterRollout, str] | None = field(default=None, init=False)
    _since: float = field(default=0.0, init=False)

    def silence(self, state: ClusterRollout, lease: Json | None) -> float:
        """Seconds without a sign of life, as seen from here: since the first look, or since the state or its Lease last changed."""
        signs = (state, lease["metadata"]["resourceVersion"] if lease is not None and is_held(lease, state) else "")
        if signs != self._seen:
            self.moved = self._seen is not None
            self._seen, self._since = signs, self.clock()
        return self.clock() - self._since

    def forget(self) -> None:
        """Begin anew: who could not look saw no sign, and the other one may have been cut off as well."""
        self._seen, self.moved = None, False
