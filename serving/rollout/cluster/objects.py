"""The objects that a rollout owns, compared and then written, each write under the epoch of the run that makes it.

Before a write the state's epoch is looked at; the write itself is a JSON patch that tests the object's stamp. The new owner stamps every
object right after it raised the epoch in the state. So a process that stalled anywhere changes nothing once it was overtaken; what
it still may do is create a Deployment with 0 pods, and its next look at the state ends it.
"""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from components.core.errors import ConflictError, DataError, MissingObjectError
from serving.rollout.cluster.api import Api, ChangedError, Json, pointer, test_operation
from serving.rollout.cluster.holding import Holding, holdings_of, record_text
from serving.rollout.cluster.names import EPOCH, HOLDS, NOBODY, REVISION, STABLE, Names, query
from serving.rollout.cluster.revision import Revision, autoscaler_for, pods_digest, render
from serving.rollout.cluster.state import Book, Say

_STAMP = pointer("metadata", "annotations", EPOCH)
_ATTEMPTS = 10
_EPOCH_TEXT = re.compile("[0-9]{1,9}")
_OWNED = ("Deployment", "HorizontalPodAutoscaler")


@dataclass(frozen=True)
class Live:
    """What the live Service selects."""

    stable: str
    """The revision that traffic belongs to; empty before the first."""
    shared: bool
    """Whether every revision's pods are selected, and not the stable one's alone."""


@dataclass(frozen=True)
class Pods:
    """How far a revision's Deployment is."""

    wanted: int
    ready: int
    settled: bool
    """Whether the controller has seen the wanted number."""


class Objects:
    """The owned objects under one epoch."""

    def __init__(self, api: Api, names: Names, book: Book, epoch: int, say: Say) -> None:
        """Nothing is read or written yet."""
        self.api, self.names, self.epoch = api, names, epoch
        self._book, self._say = book, say

    def guard(self) -> None:
        """Raise `ConflictError` unless the state's epoch is still ours."""
        found = self._book.read()
        if found is None or found.epoch != self.epoch or not self._book.is_own():
            owner = f"epoch {found.epoch} (run {found.run_id}, release {found.candidate.release})" if found else "nobody"
            deleted = "" if self._book.is_own() else ": the state was deleted"
            what = f"this run (epoch {self.epoch}) was overtaken by {owner}{deleted}"
            where = f"ConfigMap {self.names.namespace}/{self.names.state}"
            raise ConflictError(what, where=where, fix="Look with `dual rollout status`")

    def claim(self) -> None:
        """Stamp every owned object with our epoch."""
        for kind, name in self._owned():
            self._stamp(kind, name)

    def service(self) -> Json:
        """The live Service; `MissingObjectError` without it."""
        return self.api.get("Service", self.names.service)

    def live(self) -> Live:
        """What the live Service selects now; `MissingObjectError` without that Service."""
        return live_of(self.service())

    def select_live(self, stable: str, *, shared: bool = False) -> bool:
        """Let the live Service select one revision, or every one while `stable` is noted as the owner; True if it was written."""
        selector = self.names.selector(None if shared else stable or NOBODY)

        def change(service: Json) -> list[Json]:
            annotations = service["metadata"].get("annotations") or {}
            if service["spec"].get("selector") == selector and annotations.get(STABLE, "") == stable:
                return []
            return [
                {"op": "add", "path": "/spec/selector", "value": selector},
                {"op": "add", "path": pointer("metadata", "annotations", STABLE), "value": stable},
            ]

        return self._ensure("Service", self.names.service, change)

    def holding(self, host: str) -> Holding | None:
        """What the host's pods are to hold, by the live Service; None if it does not say, or nobody can read it."""
        return _readable(self.service()).get(host)

    def record_holding(self, host: str, holding: Holding, *, beside: Collection[str] = ()) -> bool:
        """Let the live Service say what the host's pods hold, and nothing of other hosts than those `beside`; True if it was written."""

        def change(service: Json) -> list[Json]:
            found = _readable(service)
            wanted = record_text({name: each for name, each in found.items() if name in beside} | {host: holding})
            same = (service["metadata"].get("annotations") or {}).get(HOLDS) == wanted
            return [] if same else [{"op": "add", "path": pointer("metadata", "annotations", HOLDS), "value": wanted}]

        return self._ensure("Service", self.names.service, change)

    def select_preview(self, revision: str) -> bool:
        """Let the preview Service select one revision; True if it was written, `MissingObjectError` without that Service."""
        selector = self.names.selector(revision or NOBODY)

        def change(service: Json) -> list[Json]:
            same = service["spec"].get("selector") == selector
            return [] if same else [{"op": "add", "path": "/spec/selector", "value": selector}]

        return self._ensure("Service", self.names.preview, change)

    def route(self) -> Json | None:
        """The HTTPRoute, where the cluster has one for this model."""
        return self.api.find_allowed("HTTPRoute", self.names.route)

    def weigh(self, weight: int) -> bool:
        """Give the preview Service `weight` percent of the route and the live one the rest, both in full; True if it was written.

        `MissingObjectError` without the route.
        """
        rules = [{"backendRefs": [self._backend(self.names.service, 100 - weight), self._backend(self.names.preview, weight)]}]

        def change(route: Json) -> list[Json]:
            found = route["spec"].get("rules") or [{}]
            same = all(_weights(rule) == _weights(rules[0]) for rule in found)
            # An operator's matches and filters stay: only where a rule leads is ours.
            wanted = [{**rule, **rules[0]} for rule in found]
            return [] if same else [{"op": "add", "path": "/spec/rules", "value": wanted}]

        return self._ensure("HTTPRoute", self.names.route, change)

    def _backend(self, service: str, weight: int) -> Json:
        return {"name": service, "port": 8501, "weight": weight}

    def weight(self) -> float:
        """The candidate's weight in percent that the route holds; 0 without one."""
        route = self.route()
        rules = route["spec"].get("rules") or [{}] if route else [{}]
        weights = _weights(rules[0])
        total = sum(weights.values())
        return 100 * weights.get(self.names.preview, 0) / total if total else 0.0

    def deployment(self, revision: str) -> Json | None:
        """The Deployment of a revision."""
        return self.api.find("Deployment", self.names.deployment(revision))

    def ensure_deployment(self, template: Json, revision: Revision) -> bool:
        """Make the revision's Deployment, with 0 pods, if it is not there; True if it was made."""
        if self.deployment(revision.revision) is not None:
            return False
        self.guard()
        try:
            self.api.create("Deployment", render(template, revision, self.names, self.epoch))
        except ChangedError:
            # Made in between: by our own lost call, or by a process that we overtook or that overtakes us. The stamp will tell.
            self._stamp("Deployment", self.names.deployment(revision.revision))
        return True

    def restore_pods(self, template: Json, revision: Revision) -> bool:
        """Set back what the revision's pods run, if somebody changed it by hand; True if that was so. It must have no live traffic."""
        wanted, name = render(template, revision, self.names, self.epoch), self.names.deployment(revision.revision)

        def change(deployment: Json) -> list[Json]:
            same = pods_digest(deployment) == pods_digest(wanted)
            return [] if same else [{"op": "add", "path": "/spec/template", "value": wanted["spec"]["template"]}]

        # Where a webhook of the cluster's own rewrites images it will have done so again: then nobody changed anything.
        return self._ensure("Deployment", name, change) and pods_digest(self.api.get("Deployment", name)) == pods_digest(wanted)

    def scale(self, revision: str, replicas: int) -> bool:
        """Set the number of pods; True if it was written. `MissingObjectError` if the Deployment was deleted."""

        def change(deployment: Json) -> list[Json]:
            same = deployment["spec"].get("replicas") == replicas
            return [] if same else [{"op": "add", "path": "/spec/replicas", "value": replicas}]

        return self._ensure("Deployment", self.names.deployment(revision), change)

    def pods(self, revision: str) -> Pods:
        """How many pods of a revision are wanted and ready; none without its Deployment."""
        found = self.deployment(revision)
        if found is None:
            return Pods(0, 0, True)
        status = found.get("status") or {}
        settled = status.get("observedGeneration", 0) >= found["metadata"].get("generation", 0)
        return Pods(found["spec"].get("replicas", 0), status.get("readyReplicas", 0), settled)

    def revisions(self) -> list[Json]:
        """Every revision's Deployment, oldest first."""
        return sorted(self._all("Deployment"), key=lambda each: (each["metadata"]["creationTimestamp"], each["metadata"]["name"]))

    def autoscaler(self, revision: str) -> Json | None:
        """The revision's own HorizontalPodAutoscaler."""
        return self.api.find("HorizontalPodAutoscaler", self.names.deployment(revision))

    def ensure_autoscaler(self, revision: str) -> bool:
        """Give the revision its own copy of the applied HorizontalPodAutoscaler, if there is one; True if it was made or changed."""
        applied = self.api.find("HorizontalPodAutoscaler", self.names.autoscaler)
        if applied is None:
            return False
        wanted = autoscaler_for(applied, revision, self.names, self.epoch)
        name = wanted["metadata"]["name"]
        if self.autoscaler(revision) is None:
            self.guard()
            try:
                self.api.create("HorizontalPodAutoscaler", wanted)
                return True
            except ChangedError:
                self._stamp("HorizontalPodAutoscaler", name)

        def change(found: Json) -> list[Json]:
            same = found["spec"] == wanted["spec"]
            return [] if same else [{"op": "add", "path": "/spec", "value": wanted["spec"]}]

        return self._ensure("HorizontalPodAutoscaler", name, change)

    def remove(self, kind: str, found: Json) -> None:
        """Delete an owned object as it was read; an object that changed meanwhile is looked at again by whoever owns it."""
        self.guard()
        try:
            self.api.delete(kind, found)
        except ChangedError:
            self._say(f"{kind} {found['metadata']['name']} changed while it was to be deleted: left for the next rollout")

    def _owned(self) -> Iterator[tuple[str, str]]:
        yield "Service", self.names.service
        if self.api.find("Service", self.names.preview):
            yield "Service", self.names.preview
        if self.route():
            yield "HTTPRoute", self.names.route
        for kind in _OWNED:
            for each in self._all(kind):
                yield kind, each["metadata"]["name"]

    def _all(self, kind: str) -> Iterator[Json]:
        """Told by their names: the label of the revision may have been changed by hand."""
        found = self.api.list(kind, query(self.names.labels))
        return (each for each in found if each["metadata"]["name"].startswith(self.names.deployment("")))

    def _ensure(self, kind: str, name: str, change: Callable[[Json], list[Json]]) -> bool:
        for _ in range(_ATTEMPTS):
            found = self.api.get(kind, name)
            operations = change(found)
            if not operations:
                return False
            self.guard()
            try:
                self.api.patch(kind, name, [test_operation(_STAMP, str(self.epoch)), *_unchanged(found), *operations])
                return True
            except ChangedError:
                self._stamp(kind, name)
        what = "somebody else changes it again and again"
        raise ConflictError(
            what, where=f"{kind} {self.names.namespace}/{name}", fix="Find out who: kubectl get -o yaml --show-managed-fields"
        )

    def _stamp(self, kind: str, name: str) -> None:
        """Put our epoch on an object whatever stands there; `ConflictError` if the state has a newer one. What is gone needs none.

        The state decides: its epoch rises before the first object gets it. So another epoch on an object, be it a higher one, is an old
        one or somebody's edit as long as the state has ours, which is looked at after the object was.
        """
        for _ in range(_ATTEMPTS):
            found = self.api.find(kind, name)
            if found is None or (found["metadata"].get("annotations") or {}).get(EPOCH) == str(self.epoch):
                return
            self.guard()
            try:
                self.api.patch(kind, name, _stamping(found, self.epoch))
                return
            except MissingObjectError:
                return
            except ChangedError:
                continue
        raise ConflictError("it changes all the time", where=f"{kind} {self.names.namespace}/{name}", fix="Find out who writes it")


def live_of(service: Json) -> Live:
    """What a live Service selects."""
    selector = service["spec"].get("selector") or {}
    noted = (service["metadata"].get("annotations") or {}).get(STABLE, "")
    selected = selector.get(REVISION, "")
    if selected:
        return Live("" if selected == NOBODY else selected, shared=False)
    return Live(noted, shared=bool(selector))


def _readable(service: Json) -> dict[str, Holding]:
    try:
        return holdings_of(service)
    except DataError:
        # Somebody edited it; what is written now is whole again.
        return {}


def leads_to_live(route: Json, names: Names) -> bool:
    """Whether every rule of a route gives all its traffic to the live Service."""
    rules = [_weights(rule) for rule in route["spec"].get("rules") or []]
    return bool(rules) and all(rule.get(names.service, 0) and not rule.get(names.preview, 0) for rule in rules)


def stamp_of(found: Json | None) -> int:
    """The epoch on an object; 0 if there is none, or none that we could have written."""
    text = (found["metadata"].get("annotations") or {}).get(EPOCH, "0") if found else "0"
    return int(text) if _EPOCH_TEXT.fullmatch(text) else 0


def _unchanged(found: Json) -> list[Json]:
    """The tests that let a patch fail if it comes late, after newer ones: a request may be on its way for longer than anyone waits."""
    metadata = found["metadata"]
    # A controller writes the status again and again, which changes the version and not the generation; not every kind has one.
    # Generations count from 1 again if the object is deleted and made anew.
    key = "generation" if "generation" in metadata else "resourceVersion"
    return [test_operation(pointer("metadata", each), metadata[each]) for each in ("uid", key)]


def _stamping(found: Json, epoch: int) -> list[Json]:
    version = test_operation("/metadata/resourceVersion", found["metadata"]["resourceVersion"])
    if found["metadata"].get("annotations") is None:
        return [version, {"op": "add", "path": "/metadata/annotations", "value": {EPOCH: str(epoch)}}]
    return [version, {"op": "add", "path": _STAMP, "value": str(epoch)}]


def _weights(rule: Json) -> dict[str, int]:
    return {each["name"]: each.get("weight", 1) for each in rule.get("backendRefs") or []}
