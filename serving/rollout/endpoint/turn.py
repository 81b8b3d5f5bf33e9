"""One process' turn at a rollout on an endpoint: how it waits, saves, deploys and moves traffic. What comes after what is in `machine`.

Every write is preceded by a look at the state: a process whose epoch is no longer the stored one stops. A write that was under way at that
moment can't do harm: the split is written under the endpoint's etag, which every take-over changes (the label dual-epoch); a deployment
carries no split; and Google undeploys nothing that has traffic.
"""

import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from components.core.errors import ConflictError, MissingError, RolloutError, UnavailableError, UsageError
from components.core.release import read_release
from components.core.stores import Store
from serving.rollout.endpoint.bodies import (
    CONTENT,
    EPOCH,
    Json,
    deployed_body,
    display_name,
    endpoint_body,
    model_body,
    model_id,
)
from serving.rollout.endpoint.faults import is_stale, operation_fault
from serving.rollout.endpoint.service import Service
from serving.rollout.endpoint.split import Split, divided, in_words, ours, room, same
from serving.rollout.endpoint.state import Book, Deployment, EndpointRollout, Phase
from serving.rollout.state import utc_now

T = TypeVar("T")
_TELL_EVERY = 60.0
"""Seconds after which a long operation is mentioned again."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Clock:
    """Time, so that it can be another one in a simulation."""

    now: Callable[[], datetime] = utc_now
    sleep: Callable[[float], None] = time.sleep


class Wanted(Exception):
    """Somebody asked for an action; caught by `Machine.run`."""

    def __init__(self, action: str) -> None:
        """Carry the action's name."""
        super().__init__(action)
        self.action = action


class EndpointGoneError(RolloutError):
    """Somebody deleted the endpoint, and with it everything that was deployed there."""


class SplitChanged(Exception):
    """Somebody else changed our part of the endpoint's traffic split; caught by `Machine.run`."""

    def __init__(self, found: str, left: str) -> None:
        """Both splits in words."""
        super().__init__(found)
        self.found, self.left = found, left


@dataclass
class Turn:
    """The hold of one process on a rollout, under one epoch."""

    store: Store
    service: Service
    book: Book
    state: EndpointRollout
    say: Say
    published: Callable[[str], bool]
    """Whether the pair of this release is published."""
    heard: Callable[[EndpointRollout], None] = lambda _: None
    """Told of every saved transition; must not raise."""
    clock: Clock = field(default_factory=Clock)
    _claimed: bool = field(default=False, init=False)

    @property
    def stable(self) -> str:
        """The deployed model that live traffic goes back to; empty at the first deployment."""
        return self.state.stable.deployed if self.state.stable else ""

    @property
    def candidate(self) -> str:
        """The deployed model that comes; empty before its id is chosen."""
        return self.state.candidate.deployed

    def where(self) -> str:
        """The rollout in words, for messages."""
        return f"rollout of {self.state.candidate.release} on endpoint '{display_name(self.state.name, self.state.place)}'"

    # --- saving and waiting -------------------------------------------------------------------------------------------------------

    def save(self, phase: Phase, text: str, *, within: float | None = None, **changes: object) -> None:
        """Save the next phase; `ConflictError` if another process took over."""
        self.keep(self.state.to(phase, text, now=self.clock.now(), within=within, **changes))
        self.say(f"{phase}: {text}")
        self.heard(self.state)

    def keep(self, state: EndpointRollout) -> None:
        """Save a state that is no transition."""
        self.book.save(state)
        self.state = state

    def is_late(self) -> bool:
        """Whether the phase's deadline has passed."""
        return self.clock.now() >= datetime.fromisoformat(self.state.deadline)

    def look(self) -> None:
        """`ConflictError` if another process took over, `Wanted` if somebody asked for something."""
        action = self.book.guard(self.state.epoch)
        if action and self.state.phase != "aborting":
            raise Wanted(action)

    def tick(self) -> None:
        """Wait a moment and look."""
        self.clock.sleep(self.state.plan.poll_seconds)
        self.look()

    def finish(self, operation: Json, doing: str) -> Json:
        """Wait for a long-running operation, with a line from time to time; its answer.

        Raises `RolloutError` with the cause if it failed or the phase's deadline passes first, and as `look`.
        """
        began = told = self.clock.now()
        while not operation.get("done"):
            if self.is_late():
                what = f"{doing} is not done in time; {operation['name']} goes on"
                raise RolloutError(what, where=self.where(), fix="Raise roll_out_cloud.vertex.plan.progress_deadline, then run again")
            self.tick()
            if (self.clock.now() - told).total_seconds() >= _TELL_EVERY:
                told = self.clock.now()
                self.say(f"{doing}: {(told - began).total_seconds():.0f} s, it goes on")
            operation = self.service.operation(operation["name"])
        if operation.get("error"):
            machine = self.state.place.machines.machine_type
            raise operation_fault(operation, doing=doing, project=self.service.wire.project, machine=machine)
        return operation.get("response", {})

    def settle(self, resource: str, doing: str) -> None:
        """Wait until no operation of a resource goes on: a process before this one may have begun it. Its end is looked at elsewhere."""
        for operation in self.service.unfinished(resource):
            self.say(f"{doing}: {operation['name'].rpartition('/')[2]} goes on, and is waited for")
            with suppress(RolloutError):
                self.finish(operation, doing)

    # --- the endpoint -------------------------------------------------------------------------------------------------------------

    def ensure_endpoint(self) -> None:
        """The endpoint is there, is known to the state, and carries our epoch."""
        if not self.state.endpoint:
            display, name = display_name(self.state.name, self.state.place), self.state.name
            identity = f"{model_id(name)[:56].replace('_', '-')}-{hash_of(display) % 10**6}"
            body = endpoint_body(name, self.state.place)

            def make() -> None:
                self.finish(self.service.create_endpoint(body, identity), f"endpoint '{display}' is made")

            found = self._ensure(lambda: self.service.find_endpoint(display, name), make)
            self.keep(self.state.model_copy(update={"endpoint": found["name"]}))
        self.claim()

    def claim(self) -> None:
        """From now on the endpoint's etag is one that no process of an older epoch has seen; `ConflictError` if a newer one was here."""
        if self._claimed or not self.state.endpoint:
            return
        epoch = str(self.state.epoch)

        def claimed() -> bool | None:
            return self.endpoint().get("labels", {}).get(EPOCH) == epoch or None

        def mark() -> None:
            endpoint = self.endpoint()
            self.service.patch_endpoint(endpoint, labels={**endpoint.get("labels", {}), EPOCH: epoch})

        self._claimed = self._ensure(claimed, mark)

    def endpoint(self) -> Json:
        """The endpoint now; `ConflictError` if a newer epoch owns it, `EndpointGoneError` if it was deleted."""
        try:
            found = self.service.endpoint(self.state.endpoint)
        except MissingError:
            fix = "Start the rollout again: the endpoint is made anew"
            raise EndpointGoneError(f"endpoint {self.state.endpoint} was deleted by somebody", where=self.where(), fix=fix) from None
        owner = found.get("labels", {}).get(EPOCH, "0")
        if owner.isdigit() and int(owner) > self.state.epoch:
            what = f"endpoint {last_part(found['name'])} belongs to epoch {owner} by now"
            raise ConflictError(what, where=self.where(), fix="Look with `dual rollout status`")
        return found

    def mine(self, endpoint: Json) -> dict[str, str]:
        """Our deployed models: id → release. They are versions of our Model; everything else on the endpoint is somebody else's."""
        return {identity: each.release for identity, each in deployments(endpoint, self.state.name).items()}

    def set_split(self, weight: int, *, candidate: str, stable: str) -> Split:
        """Give the candidate `weight` percent of our room, the rest to stable, by compare-and-swap; the split that holds then.

        Raises `SplitChanged` if what is there is neither that nor what this rollout left.
        """

        def wanted(endpoint: Json) -> Split:
            own = [*self.mine(endpoint), candidate, stable]
            return divided(endpoint.get("trafficSplit", {}), own, stable=stable, candidate=candidate, weight=weight)

        def reached() -> Split | None:
            endpoint = self.endpoint()
            self._require_room(endpoint, weight, wanted(endpoint))
            if same(wanted(endpoint), endpoint.get("trafficSplit", {})):
                return wanted(endpoint)
            self.check_split(endpoint)
            return None

        def move() -> None:
            endpoint = self.endpoint()
            self.check_split(endpoint)
            self.service.patch_endpoint(endpoint, trafficSplit=wanted(endpoint))

        return self._ensure(reached, move)

    def check_split(self, endpoint: Json) -> None:
        """`SplitChanged` if our part of the split is not what this rollout left."""
        left, mine = self.state.split, self.mine(endpoint)
        if left is None:
            return
        now, own = endpoint.get("trafficSplit", {}), {*mine, self.candidate, self.stable}
        if not same(ours(now, own), ours(left, own)):
            raise SplitChanged(in_words(now, mine), in_words(left, mine))

    def _require_room(self, endpoint: Json, weight: int, wanted: Split) -> None:
        now, mine = endpoint.get("trafficSplit", {}), self.mine(endpoint)
        if sum(wanted.values()) in (0, 100) and (room(now, [*mine, self.candidate, self.stable]) or not weight):
            return
        what = f"traffic of endpoint {last_part(endpoint['name'])} is somebody else's ({in_words(now, mine)})"
        fix = "Choose an endpoint of its own (roll_out_cloud.vertex.endpoint), or give a deployed model of ours a share by hand first"
        raise RolloutError(what, where=self.where(), fix=fix)

    # --- models -------------------------------------------------------------------------------------------------------------------

    def ensure_version(self, wanted: Deployment) -> Deployment:
        """The release is a version of our Model; found by its label, or uploaded."""
        body = model_body(self.state.name, read_release(self.store, wanted.release), self.store.uri, self.state.place)
        resource, doing = f"{self.service.wire.parent}/models/{body['displayName']}", f"the model of {wanted.release} is uploaded"

        def uploaded() -> str | None:
            self.settle(resource, doing)
            if self.service.model(body["displayName"]) is None:
                return None
            found = self.service.versions(resource, wanted.release, body["labels"][CONTENT])
            return f"{resource}@{found[0]['versionId']}" if found else None

        def upload() -> str:
            known = self.service.model(body["displayName"]) is not None
            answer = self.finish(self.service.upload(body, **({"parent": resource} if known else {"identity": body["displayName"]})), doing)
            return f"{resource}@{answer['modelVersionId']}"

        return wanted.model_copy(update={"version": self._ensure(uploaded, upload)})

    def ensure_deployed(self, wanted: Deployment) -> None:
        """The deployed model of that id is on the endpoint; it has no traffic if it is new."""
        doing = f"release {wanted.release} is deployed"
        body = deployed_body(wanted.deployed, self.state.name, wanted.release, wanted.version, self.state.place)

        def there() -> bool | None:
            if wanted.deployed in self.mine(self.endpoint()):
                return True
            self.settle(self.state.endpoint, doing)
            return wanted.deployed in self.mine(self.endpoint()) or None

        self._ensure(there, lambda: self._done(self.service.deploy(self.state.endpoint, body), doing))

    def undeploy(self, identity: str) -> None:
        """That deployed model is gone; it must have no traffic. Nothing is sent if it is gone already."""

        def gone() -> bool | None:
            if identity not in self.mine(self.endpoint()):
                return True
            self.settle(self.state.endpoint, "a deployed model goes")
            return identity not in self.mine(self.endpoint()) or None

        self._ensure(gone, lambda: self._done(self.service.undeploy(self.state.endpoint, identity), f"{identity} is undeployed"))

    def _done(self, operation: Json, doing: str) -> None:
        self.finish(operation, doing)

    def _ensure(self, look: Callable[[], T | None], act: Callable[[], T | None]) -> T:
        """What `look` finds; until it finds something, `act`, unless that answers it itself. An act whose fate is not known is looked at.

        Before every act the state is read: `ConflictError` if another process took over, `Wanted` if somebody asked for something.
        Raises the last refusal once the patience is over.
        """
        began = self.clock.now()
        while True:
            if (found := look()) is not None:
                return found
            self.look()
            try:
                if (made := act()) is not None:
                    return made
            except UsageError as error:
                if (found := look()) is not None:
                    return found
                if not is_stale(error):
                    raise
            except (UnavailableError, ConflictError) as error:
                self.book.guard(self.state.epoch)
                if (self.clock.now() - began).total_seconds() > self.state.place.patience:
                    raise
                self.say(f"looked at again, for {error.what}")
                self.clock.sleep(random.uniform(0.1, 1.0) * min(self.state.plan.poll_seconds, 2.0))  # noqa: S311


def deployments(endpoint: Json, name: str) -> dict[str, Deployment]:
    """The deployed models of an endpoint that are versions of the Model of `name`, by id."""
    found = {}
    for each in endpoint.get("deployedModels", ()):
        resource, _, version = each["model"].partition("@")
        if last_part(resource) == model_id(name):
            number = str(each.get("modelVersionId", "") or version)
            release = each.get("displayName", "").rpartition("-")[2]
            found[each["id"]] = Deployment(release=release, version=f"{resource}@{number}", deployed=each["id"])
    return found


def last_part(name: str) -> str:
    """The id at the end of a resource name."""
    return name.rpartition("/")[2]


def hash_of(text: str) -> int:
    """A number that is the same in every process."""
    from components.core.digest import sha256_bytes

    return int(sha256_bytes(text.encode())[:12], 16)
