"""A rollout by labels in the test's own process, on a stage where a test may do anything to it at a chosen moment."""

from dataclasses import dataclass
from typing import Any

from serving.rollout.cluster.api import Api, Json
from serving.rollout.cluster.begin import Site, begin
from serving.rollout.cluster.holding import Holding, holdings_of
from serving.rollout.cluster.machine import Machine
from serving.rollout.cluster.names import REVISION
from serving.rollout.cluster.objects import Live
from serving.rollout.cluster.state import ClusterRollout
from tests.crash.cluster_site import RELEASES, FileChannel, plan_of
from tests.crash.labels.kubelets import Kubelets, Pod, Ward
from tests.crash.labels.site import gaps, host_of, live_pods, machine_of, ship, stable_of, witness
from tests.crash.stage import Act, Kind, Scene, Stage, _Judge

PHASES = ["prepare", "validate_preview", "analyze", "promote", "post_analysis", "drain", "promoted"]
"""Of a rollout within a host."""
UNDER_WAY = PHASES[:-1]


def at(moment: str, *acts: Act, **scene: Any) -> Scene:
    """A scene in which somebody does this, one thing each time that the moment comes."""
    found = Scene(**scene)
    found.at[moment] = list(acts)
    return found


@dataclass
class LabelStage(Stage):
    """One namespace whose pods are hosts."""

    kubelets: Kubelets = None  # pyright: ignore[reportAssignmentType]

    def __init__(self, api: Api, channel: FileChannel, kubelets: Kubelets) -> None:
        super().__init__(api, channel)
        self.kubelets = kubelets

    @property
    def ward(self) -> Ward:
        """What may be done to the pods."""
        return self.kubelets.wards[self.api.namespace]

    @property
    def host(self) -> str:
        """The host that the template makes."""
        return host_of(self.api)

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
            held=witness(self.kubelets.address, self.api.namespace),
        )
        return begin(site, RELEASES[release], "", plan_of(**{"strategy": "labels", **plan}), run_id=run_id, kind=kind)

    def revision(self, release: str) -> str:
        """The host: the same for every release."""
        del release
        return self.host

    def held(self) -> dict[str, Holding]:
        """What the live Service says."""
        return holdings_of(self.api.get("Service", "classifier"))

    def fakes(self, host: str = "") -> list[Pod]:
        """The pods in memory."""
        return self.ward.pods[host or self.host]

    def answers(self) -> set[str]:
        """The releases, by letter, as which pods with live traffic answer."""
        return set(stable_of(self.kubelets.address, self.api.namespace, live_pods(self.api)).values())

    def loaded(self) -> set[str]:
        """The releases, by letter, that all pods of the host have loaded; one that only some have is in capitals."""
        letters = {int(release, 16): letter for letter, release in RELEASES.items()}
        every = [{letters[v] for v, (state, _) in pod.server.known.items() if state == "AVAILABLE"} for pod in self.fakes()]
        return set.intersection(*every) | {letter.upper() for letter in set.union(*every) - set.intersection(*every)}

    def pod_objects(self, host: str = "") -> list[Json]:
        """The Pod objects of a host."""
        return list(self.api.list("Pod", f"{REVISION}={host or self.host}"))

    def replace_pod(self, number: int = 0) -> None:
        """A node goes, and its pod is made anew elsewhere."""
        with self.ward.lock:
            gone = self.fakes().pop(number)
            path = f"/api/v1/namespaces/{self.api.namespace}/pods/{gone.name}"
            self.api._client.call_api(path, "DELETE", body={"gracePeriodSeconds": 0}, auth_settings=["BearerToken"], _preload_content=False)
        self.kubelets.attend(self.api.namespace)

    def restart_server(self, number: int = 0) -> None:
        """A server crashes and is started again."""
        with self.ward.lock:
            self.fakes()[number].restart()
        self.kubelets.attend(self.api.namespace)

    def has_only(self, release: str, pods: int = 3) -> None:
        """Assert that a release alone is held and serves, nothing is in progress, and no request for the label ever failed."""
        self.kubelets.attend(self.api.namespace)
        assert self.live() == Live(self.host, shared=False)
        assert self.held() == {self.host: Holding(stable=RELEASES[release], releases={RELEASES[release]: ""})}
        assert self.answers() == {release}
        assert self.loaded() == {release}
        assert len(live_pods(self.api)) == pods
        assert self.state().is_over()
        assert self.channel.release() == RELEASES[release]
        assert gaps(self.kubelets, self.api.namespace) == []


def stand(stage: LabelStage, start: str) -> None:
    """Bring a stage to a point at which a case begins."""
    api, channel, pages = stage.api, stage.channel, stage.kubelets.address
    if start == "nothing":
        return
    ship(api, channel, pages, "a", run_id="r0")
    if start in ("followed",):
        ship(api, channel, pages, "b", run_id="r1")
    phases = {"under way": "analyze", "switched": "post_analysis", "draining": "drain"}
    if start in phases:
        machine = machine_of(api, channel, pages, "b", run_id="gone")
        machine.objects.claim()
        while machine.state.phase != phases[start]:
            getattr(machine, f"_{machine.state.phase}")()
    if start == "draining":
        channel.publish(RELEASES["b"])
    if start == "template changed":
        stage.edit("Deployment", "classifier", ("spec", "template", "spec", "containers", "0", "image"), "server:2")


STARTS = ("nothing", "promoted", "followed", "under way", "switched", "draining", "template changed")
