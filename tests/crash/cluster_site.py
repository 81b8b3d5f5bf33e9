"""A served model on an API server without kubelet: applied objects, a controller that makes pods ready, rules that must always hold."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.core.errors import MissingObjectError
from components.core.gate import Reason
from serving.rollout.analysis.pods import PodTarget
from serving.rollout.analysis.rules import Measurement
from serving.rollout.analysis.settings import AnalysisSettings
from serving.rollout.cluster.api import Api, ChangedError, Json, connect
from serving.rollout.cluster.begin import Site, begin
from serving.rollout.cluster.names import COMPONENT, NAME, REPLICAS, REVISION, SERVER, Names
from serving.rollout.cluster.objects import live_of
from serving.rollout.cluster.revision import revision_of
from serving.rollout.cluster.settings import Plan, Step
from serving.rollout.cluster.state import Book, ClusterRollout, Say

REPLICAS_WANTED = 3
RELEASES = {"a": "a" * 12, "b": "b" * 12, "c": "c" * 12}
METRICS = AnalysisSettings(count=1, interval=0.001)


def template(image: str = "server:1", replicas: int = REPLICAS_WANTED) -> Json:
    """The applied Deployment, small."""
    labels = {NAME: "classifier", COMPONENT: SERVER, REVISION: "template"}
    fetch = {"name": "fetch", "image": "deployer:1", "env": [{"name": "DUAL_RELEASE", "value": ""}]}
    pod = {"initContainers": [fetch], "containers": [{"name": "server", "image": image}]}
    metadata = {"name": "classifier", "annotations": {REPLICAS: str(replicas)}, "labels": {NAME: "classifier", COMPONENT: SERVER}}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def service(name: str) -> Json:
    """An applied Service: no selector."""
    ports = [{"name": "rest", "port": 8501}, {"name": "grpc", "port": 8500}]
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": {NAME: "classifier"}}, "spec": {"ports": ports}}


def make_namespace(kubeconfig: Path, name: str) -> Api:
    """A new namespace with the applied objects."""
    api = connect(name, kubeconfig=kubeconfig, patience=20)
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    api._client.call_api("/api/v1/namespaces", "POST", body=body, _preload_content=False, auth_settings=["BearerToken"])
    for each in (service("classifier"), service("classifier-preview")):
        api.create("Service", each)
    api.create("Deployment", template())
    return api


def copy_settled(source: Api, target: Api) -> None:
    """Bring a namespace with the applied objects to where another one stands: one promoted release, nothing in progress."""
    state = source.get("ConfigMap", "classifier-rollout")
    target.create("ConfigMap", {"metadata": {"name": "classifier-rollout", "annotations": {}}, "data": state["data"]})
    for name in ("classifier", "classifier-preview"):
        found = source.get("Service", name)
        annotations = {"op": "add", "path": "/metadata/annotations", "value": found["metadata"]["annotations"]}
        target.patch("Service", name, [annotations, {"op": "add", "path": "/spec/selector", "value": found["spec"]["selector"]}])
    for found in source.list("Deployment", f"{NAME}=classifier"):
        if found["metadata"]["name"] != "classifier":
            metadata = {key: found["metadata"][key] for key in ("name", "labels", "annotations")}
            target.create("Deployment", {"metadata": metadata, "spec": found["spec"]})
    settle(target)


class Controller(threading.Thread):
    """Stands in for the Deployment controller and the kubelets: the wanted pods are ready at once, in every namespace it is told of."""

    def __init__(self, kubeconfig: Path) -> None:
        super().__init__(daemon=True)
        self._kubeconfig, self._ended = kubeconfig, threading.Event()
        self.apis: dict[str, Api] = {}
        self.broken: set[str] = set()
        """Releases whose pods never get ready."""

    def watch(self, namespace: str) -> None:
        self.apis[namespace] = connect(namespace, kubeconfig=self._kubeconfig)

    def forget(self, namespace: str) -> None:
        self.apis.pop(namespace, None)

    def run(self) -> None:
        while not self._ended.wait(0.015):
            for api in list(self.apis.values()):
                settle(api, self.broken)

    def stop(self) -> None:
        self._ended.set()
        self.join()


def deployments_of(api: Api) -> Iterator[Json]:
    """The Deployments of the known releases, one by one: a list would wait for the API server's cache, 50 ms after each write."""
    (suffix,) = _SUFFIXES or [revision_of("", "", api.get("Deployment", "classifier")).revision]
    _SUFFIXES[:] = [suffix]
    for release in RELEASES.values():
        found = api.find("Deployment", f"classifier-{release}{suffix}")
        if found is not None:
            yield found


_SUFFIXES: list[str] = []
"""`-<digest>` of the template, the same in every namespace."""


def settle(api: Api, broken: set[str] | None = None) -> None:
    """Give every Deployment the status that a healthy cluster would give it."""
    for deployment in deployments_of(api):
        name, wanted = deployment["metadata"]["name"], deployment["spec"].get("replicas", 1)
        ready = 0 if broken and any(name.startswith(f"classifier-{each}") for each in broken) else wanted
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": wanted,
            "readyReplicas": ready,
            "availableReplicas": ready,
        }
        found = {key: (deployment.get("status") or {}).get(key, 0) for key in status}
        if found != status:
            try:
                api.patch("Deployment", f"{name}/status", [{"op": "add", "path": "/status", "value": status}])
            except (ChangedError, MissingObjectError):
                continue


class Script:
    """A judge who has made up his mind: passes everything, or fails at the preview, at a step's analysis, or after the switch."""

    def __init__(self, fails: str = "", shared: "Switch | None" = None) -> None:
        self.fails, self.rounds, self._shared = fails, 0, shared

    def preview(self, candidate: list[PodTarget]) -> list[Reason]:
        return [Reason(metric="golden", passed=self.fails != "preview", text="golden answers")]

    def measure(self, candidate: list[PodTarget], stable: list[PodTarget]) -> list[Measurement]:
        bad = self.fails == ("post" if self._shared and self._shared.phase() == "post_analysis" else "analysis")
        outcome: Any = "failed" if bad else "successful"
        return [
            Measurement(metric=name, outcome=outcome, text=f"{name} {outcome}", at="2026-01-01T00:00:00Z") for name in METRICS.metrics()
        ]


class Switch:
    """Lets the script see the phase."""

    def __init__(self, book: Book) -> None:
        self._book = book

    def phase(self) -> str:
        found = self._book.read()
        return found.phase if found else ""


class FileChannel:
    """The pair's channel as a file with a release's name and a sequence."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _read(self) -> Json:
        return json.loads(self.path.read_text()) if self.path.exists() else {"release": "", "sequence": 0}

    def release(self) -> str:
        return self._read()["release"]

    def sequence(self) -> int:
        return self._read()["sequence"]

    def publish(self, release: str) -> None:
        if self.release() != release:
            temporary = self.path.with_suffix(".part")
            temporary.write_text(json.dumps({"release": release, "sequence": self.sequence() + 1}))
            temporary.replace(self.path)


def plan_of(strategy: Any, **changes: Any) -> Plan:
    """A plan that takes no time."""
    steps = [Step(weight=25), Step(weight=50)]
    fast = {"poll_seconds": 0.02, "scale_down_delay": 0.0, "progress_deadline": 20.0, "publish_within": 20.0}
    return Plan(strategy=strategy, steps=steps, analysis=METRICS, **{**fast, **changes})


def site_of(api: Api, channel: FileChannel, *, fails: str = "", say: Say = lambda _: None) -> Site:
    """A site over an API."""
    names = Names(namespace=api.namespace)
    script = Script(fails, Switch(Book(api, names)))
    return Site(api=api, names=names, judge=script, published=channel, say=say)


def ship(
    api: Api, channel: FileChannel, release: str, strategy: str, *, run_id: str = "r", fails: str = "", say: Say = lambda _: None
) -> ClusterRollout:
    """What roll_out_cloud and publish_mobile do together."""
    machine = begin(site_of(api, channel, fails=fails, say=say), RELEASES[release], "", plan_of(strategy), run_id=run_id)
    machine.run()
    channel.publish(RELEASES[release])
    return machine.run(finish=True)


def violations(api: Api, channel: FileChannel, state: ClusterRollout | None) -> list[str]:
    """Every invariant that does not hold at this moment, read from the objects."""
    live = live_of(api.get("Service", "classifier"))
    deployments = {each["metadata"]["labels"][REVISION]: each for each in deployments_of(api)}
    ready = {revision: (each.get("status") or {}).get("readyReplicas", 0) for revision, each in deployments.items()}
    wanted = {revision: each["spec"].get("replicas", 0) for revision, each in deployments.items()}
    found = []
    promoted = channel.release()
    if promoted:
        serving = sum(ready.values()) if live.shared else ready.get(live.stable, 0)
        if serving < REPLICAS_WANTED:
            found.append(f"live traffic goes to {serving} ready pods ({live})")
        stable = next((revision for revision in deployments if revision.startswith(promoted)), "")
        if stable and not live.shared and wanted.get(stable, 0) < REPLICAS_WANTED:
            found.append(f"the promoted revision {stable} has {wanted.get(stable)} pods")
    if live.shared:
        others = [
            revision for revision, count in wanted.items() if count and state and revision not in (live.stable, state.candidate.revision)
        ]
        found += [f"{revision} gets live traffic and is no part of the rollout" for revision in others]
        if state and not ready.get(state.candidate.revision):
            found.append("weight without a ready candidate")
    found += [f"{each['metadata']['name']} has an owner" for each in deployments.values() if each["metadata"].get("ownerReferences")]
    return found


@contextmanager
def controller_of(kubeconfig: Path, *namespaces: str) -> Iterator[Controller]:
    """A running controller."""
    controller = Controller(kubeconfig)
    for namespace in namespaces:
        controller.watch(namespace)
    controller.start()
    try:
        yield controller
    finally:
        controller.stop()
