"""A follower: a process that watches one model's rollouts and does what nobody else does.

It undoes a promoted pair when somebody asks for it by annotation, brings rollouts to their end (or takes them back) whose process died,
and lets deadlines pass that nobody looks at. While a process runs a rollout, a follower only looks: it writes nothing. Two followers do no
harm: whatever either does begins with a compare-and-swap on what it saw.
"""

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from components.core.errors import ConflictError, DualError, RolloutError, UsageError
from components.core.stores import Store
from serving.rollout.cluster import actions
from serving.rollout.cluster.announce import event_of, uid_of
from serving.rollout.cluster.api import Api, UnavailableError
from serving.rollout.cluster.due import Deed, Due, Sight, find_due
from serving.rollout.cluster.names import Names
from serving.rollout.cluster.presence import Vigil, is_held
from serving.rollout.cluster.settings import ClusterSettings
from serving.rollout.cluster.site import StoreChannel
from serving.rollout.cluster.state import Book, ClusterRollout, Say
from serving.rollout.cluster.watch import Doorbell, growing_pauses
from serving.rollout.state import utc_now

_LONGEST_PAUSE = 60.0
"""Seconds between two tries while something is out of order."""
_AFTER_CONFLICT = 0.5
"""Seconds for which whoever was faster is left alone before the next look."""
_BEAT = 1.0
"""Seconds between two writes of the heartbeat."""
_WORDS: Mapping[Deed, str] = {
    "undo": "both halves go back",
    "refuse": "nothing is done",
    "abort": "it is taken back",
    "go_on": "taking it over",
    "end_drain": "it is taken back unless it is published by now",
}


class Stopped(BaseException):
    """The process is asked to end (SIGTERM); no error, and nothing that an error's handler may keep."""


@dataclass
class Heartbeat:
    """A file whose time of change says that the follower's own thread goes on; nothing without a path."""

    path: Path | None
    _last: float = field(default=-_BEAT, init=False)

    def beat(self) -> None:
        """Touch it, at most once a second. The thread that renews the Lease would beat for a follower that hangs: it doesn't count."""
        now = monotonic()
        if self.path is not None and now - self._last >= _BEAT and threading.current_thread() is threading.main_thread():
            self._last = now
            try:
                self.path.touch()
            except OSError as error:
                fix = "Choose a file that this process may write, such as one in TMPDIR"
                raise UsageError(f"the heartbeat can't be written: {error.strerror}", where=str(self.path), fix=fix) from None


@dataclass
class Follower:
    """Follows one model in the namespace of its `api`."""

    api: Api
    store: Store
    name: str
    settings: ClusterSettings
    run_id: str
    say: Say
    heartbeat: Heartbeat = field(default_factory=lambda: Heartbeat(None))
    resync: float = 60.0
    """Seconds after which to look although nothing rang."""
    pause: Callable[[float], None] = sleep

    def __post_init__(self) -> None:
        """Nothing is asked yet."""
        self.api.asking = self.heartbeat.beat
        self.names = Names(namespace=self.api.namespace, name=self.name)
        self._vigil, self._bell = Vigil(), Doorbell(self.api, "ConfigMap", self.names.state, self.pause)
        self._seen, self._version = Sight(None), ""
        self._said, self._trouble = "", ""

    def run(self, *, once: bool = False) -> None:
        """Follow until `Stopped`; with `once` until nothing is left that is due now, or somebody else sees to it.

        With `once` an error is raised; else it is said, and tried again after pauses that grow up to a minute.
        """
        self.say(f"following the rollouts of {self.name} in namespace {self.names.namespace}, store {self.store.uri}")
        try:
            self._follow(once)
        except Stopped:
            state = self._seen.state
            self.say("stopped" if state is None or state.is_over() else f"stopped in the middle of {state.phase}: who follows next goes on")

    def look(self) -> Due:
        """What is due now. Asks the API server once, twice while a rollout is in progress, and the store where a publication decides."""
        found, self._version = self.api.find_listed("ConfigMap", self.names.state)
        book = Book(self.api, self.names)
        state = book.see(found)
        if state is None or state.is_over():
            self._seen = Sight(state, book.action())
        else:
            lease = self.api.find("Lease", self.names.lease)
            self._seen = Sight(state, book.action(), is_held(lease, state), self._vigil.silence(state, lease))
        due = find_due(self._seen, utc_now(), self._is_published)
        self._say_news(f"{due.why}: {_WORDS[due.deed]}" if due.deed else due.why)
        return due

    def _follow(self, once: bool) -> None:
        pauses = growing_pauses(_LONGEST_PAUSE)
        while True:
            self.heartbeat.beat()
            try:
                due, state = self.look(), self._seen.state
                if due.deed is not None and state is not None:
                    self._carry_out(due.deed, state, due.why)
                    self._trouble = ""
                    continue
                self._trouble = ""
                if once and (due.settled or self._vigil.moved):
                    return
                pauses = growing_pauses(_LONGEST_PAUSE)
                self._bell.wait(self._version, min(self.resync, due.within))
            except DualError as error:
                if once:
                    raise
                self._report(error)
                self.pause(next(pauses))

    def _is_published(self, state: ClusterRollout) -> bool:
        return StoreChannel(self.store, state.sequence).release() == state.candidate.release

    # --- deeds --------------------------------------------------------------------------------------------------------------------

    def _carry_out(self, deed: Deed, state: ClusterRollout, why: str) -> None:
        """Do it. Who lost a race, and a rollout that went back as it should, are no trouble."""
        try:
            getattr(self, f"_{deed}")(state, why)
        except RolloutError as error:
            self.say(f"went back: {error}")
        except ConflictError as error:
            self.say(f"left to another process: {error}")
            self.pause(_AFTER_CONFLICT)
        self._said = ""

    def _undo(self, state: ClusterRollout, why: str) -> None:
        # That nothing was published yet is a reason to refuse; that a channel is gone which was there is none.
        StoreChannel(self.store, max(state.sequence, int(state.phase in ("promoted", "rolled_back")))).sequence()
        try:
            actions.undo(self.store, self.name, self.settings, reason=why, asked=(state.epoch, self._seen.action), **self._how())
        except UsageError as error:
            self._give_up(state, error)

    def _give_up(self, state: ClusterRollout, error: UsageError) -> None:
        """What can't be done is refused; unless it had begun: then whatever went wrong in the middle of it is to be reported."""
        try:
            self._refuse(state, f"can't be done: {str(error).rstrip('.')}")
        except ConflictError:
            raise error from None

    def _refuse(self, state: ClusterRollout, why: str) -> None:
        asked = (state.epoch, self._seen.action)
        actions.refuse(self.store, self.name, self.settings, asked=asked, why=why, say=self.say, api=self.api)

    def _abort(self, state: ClusterRollout, why: str) -> None:
        actions.abort(self.store, self.name, self.settings, reason=why, only_epoch=state.epoch, **self._how())

    def _go_on(self, state: ClusterRollout, _: str, *, publish: bool = True) -> None:
        actions.go_on(self.store, self.name, self.settings, only_epoch=state.epoch, publish=publish, **self._how())

    def _end_drain(self, state: ClusterRollout, why: str) -> None:
        self._go_on(state, why, publish=False)

    def _how(self) -> dict[str, Any]:
        return {"run_id": self.run_id, "say": self.say, "api": self.api}

    # --- saying -------------------------------------------------------------------------------------------------------------------

    def _say_news(self, text: str) -> None:
        """Say what is due, unless that was said already."""
        if text != self._said:
            self._said = text
            self.say(text)

    def _is_news(self, trouble: str) -> bool:
        """Say what is wrong, unless that was said and nothing succeeded since; then what is due will be said once more."""
        if trouble == self._trouble:
            return False
        self._trouble, self._said = trouble, ""
        self.say(trouble)
        return True

    def _report(self, error: DualError) -> None:
        """What keeps the follower from its work, as a line and, where the cluster can be reached, as an Event."""
        if isinstance(error, UnavailableError):
            # Who could not look has seen nothing of the others, who may have been cut off as well.
            self._vigil.forget()
        if not self._is_news(str(error)) or isinstance(error, UnavailableError) or self._seen.state is None:
            return
        state = self._seen.state.to(self._seen.state.phase, str(error), now=utc_now())
        body = event_of(self.names, state, uid_of(self.api, self.names)) | {"type": "Warning", "reason": "RolloutFollower"}
        with suppress(DualError):
            self.api.create("Event", body)
