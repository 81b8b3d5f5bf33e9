"""A rollout in the test's own process, on a stage where a test may do anything to it at a chosen moment, without waiting for it.

Moments are what the rollout itself comes to: a phase that begins, a preview, a round of measurements.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from components.core.errors import DualError
from components.core.gate import Reason
from serving.rollout.analysis.pods import PodTarget
from serving.rollout.analysis.rules import Measurement, Outcome
from serving.rollout.cluster.api import Api, Json, pointer
from serving.rollout.cluster.begin import Site, begin
from serving.rollout.cluster.machine import Machine
from serving.rollout.cluster.names import ACTION, NAME, Names
from serving.rollout.cluster.objects import Live, live_of
from serving.rollout.cluster.revision import revision_of
from serving.rollout.cluster.state import Book, ClusterRollout
from serving.rollout.cluster.turn import Clock
from serving.rollout.state import utc_now
from tests.crash.cluster_site import METRICS, RELEASES, Controller, FileChannel, plan_of, settle

Kind = Literal["rollout", "undo"]
Act = Callable[[], object]


@dataclass
class Scene:
    """How one rollout goes, and what was seen of it."""

    outcomes: list[Outcome] = field(default_factory=list)
    """Of the rounds of measurements; successful once they are used up."""
    passes: bool = True
    """Whether the preview does."""
    at: dict[str, list[Act]] = field(default_factory=lambda: defaultdict(list))
    """Moment → what somebody does then: a phase, `preview`, or `measure` (each act is done once)."""
    said: list[str] = field(default_factory=list)
    measured: list[tuple[list[str], list[str]]] = field(default_factory=list)
    """The pods of the candidate and of the stable revision in each round."""
    states: list[ClusterRollout] = field(default_factory=list)
    error: DualError | None = None
    """What the rollout ended with."""

    def come(self, moment: str) -> None:
        """Do the next act of the moment."""
        if self.at[moment]:
            self.at[moment].pop(0)()

    def phases(self) -> list[str]:
        """The phases in their order, each as often as it was saved."""
        return [state.phase for state in self.states]

    def texts(self) -> str:
        """All that was said."""
        return "\n".join(self.said)


def leaping(seconds: float) -> Clock:
    """A clock by which every wait lasts so long, while nobody waits for more than a moment."""
    now = [utc_now()]

    def sleep(_: float) -> None:
        now[0] += timedelta(seconds=seconds)
        time.sleep(0.005)

    return Clock(now=lambda: now[0], sleep=sleep)


@dataclass
class _Judge:
    scene: Scene

    def preview(self, candidate: list[PodTarget]) -> list[Reason]:
        self.scene.come("preview")
        return [Reason(metric="golden", passed=self.scene.passes, text="golden answers")]

    def measure(self, candidate: list[PodTarget], stable: list[PodTarget]) -> list[Measurement]:
        self.scene.come("measure")
        self.scene.measured.append(([pod.name for pod in candidate], [pod.name for pod in stable]))
        outcome = self.scene.outcomes.pop(0) if self.scene.outcomes else "successful"
        at = "2026-01-01T00:00:00Z"
        return [Measurement(metric=name, outcome=outcome, text=f"{name} {outcome}", at=at) for name in METRICS.metrics()]


@dataclass
class Stage:
    """One namespace, and what a test does in it."""

    api: Api
    channel: FileChannel
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        """Names of the namespace."""
        self.names = Names(namespace=self.api.namespace)
        self.book = Book(self.api, self.names)

    # --- rollouts -----------------------------------------------------------------------------------------------------------------

    def machine(self, release: str, scene: Scene, *, run_id: str = "r", kind: Kind = "rollout", **plan: Any) -> Machine:
        """A rollout that just began."""

        def heard(state: ClusterRollout) -> None:
            scene.states.append(state)
            scene.come(state.phase)

        site = Site(
            api=self.api,
            names=self.names,
            judge=_Judge(scene),
            published=self.channel,
            say=scene.said.append,
            heard=heard,
            clock=self.clock,
        )
        return begin(site, RELEASES[release], "", plan_of(**{"strategy": "blue-green", **plan}), run_id=run_id, kind=kind)

    def run(self, release: str, scene: Scene | None = None, *, publish: bool = True, finish: bool = True, **how: Any) -> Scene:
        """A rollout up to its end, or with `finish` false up to where its pair is to be published; `publish` does that.

        Errors are in the scene.
        """
        scene = scene or Scene()
        try:
            machine = self.machine(release, scene, **how)
            machine.run()
            # As the store's own compare-and-swap: nothing is published over what somebody else published meanwhile.
            if publish and self.channel.sequence() == machine.state.sequence:
                self.channel.publish(RELEASES[release])
            if finish:
                machine.run(finish=True)
        except DualError as error:
            scene.error = error
        return scene

    def ask(self, action: str) -> Act:
        """An operator's kubectl annotate."""
        return lambda: self.edit("ConfigMap", "classifier-rollout", ("metadata", "annotations"), {ACTION: action})

    # --- objects ------------------------------------------------------------------------------------------------------------------

    def revision(self, release: str) -> str:
        """The revision that the template makes of a release."""
        return revision_of(RELEASES[release], "", self.api.get("Deployment", "classifier")).revision

    def deployment(self, release: str) -> str:
        """Its Deployment's name."""
        return self.names.deployment(self.revision(release))

    def edit(self, kind: str, name: str, path: tuple[str, ...], value: object) -> None:
        """What kubectl edit does."""
        self.api.patch(kind, name, [{"op": "add", "path": pointer(*path), "value": value}])

    def drop(self, kind: str, name: str, path: tuple[str, ...]) -> None:
        """Take a field away."""
        self.api.patch(kind, name, [{"op": "remove", "path": pointer(*path)}])

    def scale(self, release: str, replicas: int) -> None:
        """What kubectl scale does."""
        self.edit("Deployment", self.deployment(release), ("spec", "replicas"), replicas)

    def delete(self, kind: str, name: str) -> None:
        """What kubectl delete does."""
        self.api.delete(kind, self.api.get(kind, name))

    def pods(self) -> dict[str, int]:
        """Release → pods that its Deployments want; those without are left out."""
        found = {each["metadata"]["name"]: each["spec"]["replicas"] for each in self.api.list("Deployment", f"{NAME}=classifier")}
        letters = {release: letter for letter, release in RELEASES.items()}
        return {letters[name.split("-")[1]]: count for name, count in found.items() if count}

    def live(self) -> Live:
        """What the live Service selects."""
        return live_of(self.api.get("Service", "classifier"))

    def state(self) -> ClusterRollout:
        """The rollout's state now."""
        found = self.book.read()
        assert found is not None
        return found

    def has_all(self, release: str, pods: int = 3) -> None:
        """Assert that a release alone serves, and nothing is in progress."""
        assert self.live() == Live(self.revision(release), shared=False)
        assert self.pods() == {release: pods}
        assert self.state().is_over()
        assert self.channel.release() == RELEASES[release]

    def selector(self, service: str = "classifier") -> dict[str, str]:
        """What a Service selects."""
        return self.api.get("Service", service)["spec"].get("selector") or {}

    def make_pod(self, release: str, status: Json, *, name: str = "", ready: bool = False) -> str:
        """A pod of a revision as its controller would make it, with a status as a kubelet would write it."""
        labels = self.names.selector(self.revision(release))
        name = name or f"{self.deployment(release)}-{len(list(self.api.list('Pod', f'{NAME}=classifier')))}"
        spec = {"containers": [{"name": "server", "image": "server:1"}], "initContainers": [{"name": "fetch", "image": "deployer:1"}]}
        self.api.create("Pod", {"metadata": {"name": name, "labels": labels}, "spec": {**spec, "nodeName": "node-1"}})
        conditions = [*status.pop("conditions", []), {"type": "Ready", "status": "True" if ready else "False"}]
        body = {"phase": "Running", "podIP": "10.0.0.1", **status, "conditions": conditions}
        self.edit("Pod", f"{name}/status", ("status",), body)
        return name

    def after(self, waits: int, act: Act) -> None:
        """Do something when the rollout has waited so many times from now on."""
        left, sleep = [waits], self.clock.sleep

        def wait(seconds: float) -> None:
            left[0] -= 1
            if not left[0]:
                act()
            sleep(seconds)

        # The machine that runs holds the clock itself.
        object.__setattr__(self.clock, "sleep", wait)

    def lose(self, release: str, controller: Controller, *, ready: int = 0, waits: int = 0) -> None:
        """Only so many pods of a release are ready from now on: their nodes are gone. With `waits` until the rollout waited so often."""
        controller.left.add(f"{self.api.namespace}/{self.deployment(release)}")
        self.set_ready(release, ready)
        if waits:
            self.after(waits, lambda: self.gain(release, controller))

    def gain(self, release: str, controller: Controller) -> None:
        """They are back."""
        controller.left.discard(f"{self.api.namespace}/{self.deployment(release)}")
        self.settle(release)

    def fill_quota(self, resource: str) -> None:
        """A quota that lets no object of that resource be made: count/deployments.apps, say."""
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}, "spec": {"hard": {resource: "0"}}}
        path = f"/api/v1/namespaces/{self.api.namespace}/resourcequotas"
        status = {"hard": {resource: "0"}, "used": {resource: "9"}}
        self._raw(path, "POST", quota)
        self._raw(f"{path}/full/status", "PATCH", [{"op": "add", "path": "/status", "value": status}])

    def _raw(self, path: str, verb: str, body: Any) -> None:
        headers = {"Content-Type": "application/json-patch+json" if verb == "PATCH" else "application/json", "Accept": "application/json"}
        how: Any = {"header_params": headers, "auth_settings": ["BearerToken"], "_preload_content": False}
        self.api._client.call_api(path, verb, body=body, **how)

    def settle(self, release: str) -> None:
        """Give its Deployment the status of a healthy cluster now, and not in a moment."""
        settle(self.api, self.api.get("Deployment", self.deployment(release)))

    def set_ready(self, release: str, ready: int, *conditions: Json) -> None:
        """A Deployment's status as its controller would write it; the stage's namespace must be left to the test."""
        deployment = self.api.get("Deployment", self.deployment(release))
        wanted = deployment["spec"]["replicas"]
        status = {"observedGeneration": deployment["metadata"]["generation"], "replicas": wanted, "readyReplicas": ready}
        self.edit("Deployment", f"{self.deployment(release)}/status", ("status",), {**status, "conditions": list(conditions)})
