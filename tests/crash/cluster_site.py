"""A served model on an API server without kubelet: applied objects, a controller that makes pods ready, rules that must always hold."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from components.core.errors import MissingObjectError
from components.core.gate import Reason
from serving.rollout.analysis.pods import PodTarget
from serving.rollout.analysis.rules import Measurement
from serving.rollout.analysis.settings import AnalysisSettings
from serving.rollout.cluster.api import Api, ChangedError, Json, connect
from serving.rollout.cluster.begin import Site, begin
from serving.rollout.cluster.names import COMPONENT, NAME, REPLICAS, REVISION, SERVER, Names
from serving.rollout.cluster.revision import revision_of
from serving.rollout.cluster.settings import Plan, Step
from serving.rollout.cluster.state import Book, ClusterRollout

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
    """An applied Service: no selector. No address of its own either, of which the API server has no more than 250."""
    spec = {"clusterIP": "None", "ipFamilyPolicy": "SingleStack", "ports": [{"name": "rest", "port": 8501}, {"name": "grpc", "port": 8500}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": {NAME: "classifier"}}, "spec": spec}


def route() -> Json:
    """An applied HTTPRoute: it leads nowhere yet."""
    spec = {"parentRefs": [{"name": "classifier"}], "hostnames": ["c.example.com"]}
    metadata = {"name": "classifier", "labels": {NAME: "classifier", COMPONENT: SERVER}}
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": metadata, "spec": spec}


def make_namespace(api: Api, applied: Json | None = None) -> None:
    """The API's namespace with the applied objects; `applied` is another template."""
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": api.namespace}}
    api._client.call_api("/api/v1/namespaces", "POST", body=body, _preload_content=False, auth_settings=["BearerToken"])
    for each in (service("classifier"), service("classifier-preview")):
        api.create("Service", each)
    api.create("Deployment", applied or template())


@dataclass(frozen=True)
class Snapshot:
    """Objects of a namespace at one point of a rollout."""

    state: Json
    services: list[Json]
    deployments: list[Json]
    route: Json | None

    @classmethod
    def of(cls, api: Api) -> "Snapshot":
        """As they are now."""
        services = [api.get("Service", name) for name in ("classifier", "classifier-preview")]
        deployments = [each for each in api.list("Deployment", f"{NAME}=classifier") if each["metadata"]["name"] != "classifier"]
        return cls(api.get("ConfigMap", "classifier-rollout"), services, deployments, api.find("HTTPRoute", "classifier"))

    def copy_to(self, api: Api) -> None:
        """Bring a namespace with the applied objects to the same point."""
        api.create("ConfigMap", {"metadata": {"name": "classifier-rollout"}, "data": self.state["data"]})
        if self.route is not None:
            metadata = {"annotations": self.route["metadata"].get("annotations", {}), **route()["metadata"]}
            api.create("HTTPRoute", {**route(), "metadata": metadata, "spec": self.route["spec"]})
        for found in self.services:
            annotations = {"op": "add", "path": "/metadata/annotations", "value": found["metadata"]["annotations"]}
            selector = {"op": "add", "path": "/spec/selector", "value": found["spec"]["selector"]}
            api.patch("Service", found["metadata"]["name"], [annotations, selector])
        for found in self.deployments:
            metadata = {key: found["metadata"][key] for key in ("name", "labels", "annotations")}
            settle(api, api.create("Deployment", {"metadata": metadata, "spec": found["spec"]}))


class Controller(threading.Thread):
    """Stands in for the Deployment controller and the kubelets: the wanted pods are ready at once, in every namespace.

    It watches instead of asking again and again: on two cores the questions of a polling one would take longer than what is tested.
    """

    def __init__(self, kubeconfig: Path) -> None:
        super().__init__(daemon=True)
        self._api, self._ended = connect("default", kubeconfig=kubeconfig), threading.Event()
        self.left: set[str] = set()
        """Namespaces, and Deployments as namespace/name, whose status is a test's own affair."""
        self.narrow: set[str] = set()
        """Namespaces with room for the pods of one Deployment: those of another one get ready when they have ended."""

    def run(self) -> None:
        while not self._ended.is_set():
            # A watch ends with its time or its connection; the next one begins with all that is there.
            with suppress(HTTPError, ApiException, OSError):
                for deployment in self._changes():
                    self._attend(deployment)

    def _changes(self) -> Iterator[Json]:
        query = [("watch", "true"), ("resourceVersion", "0"), ("timeoutSeconds", "300")]
        stream: Any = self._api._client.call_api(
            "/apis/apps/v1/deployments",
            "GET",
            query_params=query,
            auth_settings=["BearerToken"],
            _preload_content=False,
            _return_http_data_only=True,
            _request_timeout=(5, 310),
        )
        with closing(stream):
            begun = b""
            for chunk in stream.stream():
                *lines, begun = (begun + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] in ("ADDED", "MODIFIED"):
                        yield event["object"]

    def _attend(self, deployment: Json) -> None:
        namespace, name = deployment["metadata"]["namespace"], deployment["metadata"]["name"]
        if not self.left & {namespace, f"{namespace}/{name}"}:
            api = Api(self._api._client, namespace)
            if namespace in self.narrow:
                self._settle_narrow(api)
            else:
                settle(api, deployment)

    def _settle_narrow(self, api: Api) -> None:
        every = [*api.list("Deployment", f"{NAME}=classifier")]
        holders = {each["metadata"]["name"] for each in every if (each.get("status") or {}).get("readyReplicas")}
        for each in every:
            # What ended leaves a change of its own behind, by which the next one is seen to.
            fits = bool(each["spec"]["replicas"]) and holders <= {each["metadata"]["name"]}
            settle(api, each, None if fits else 0)
            holders |= {each["metadata"]["name"]} if fits else set()

    def stop(self) -> None:
        self._ended.set()


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


def settle(api: Api, deployment: Json, ready: int | None = None) -> None:
    """Give a Deployment the status that a healthy cluster would give it, or one with so many ready pods."""
    wanted = deployment["spec"].get("replicas", 1)
    ready = wanted if ready is None else ready
    counts = {"replicas": wanted, "readyReplicas": ready, "availableReplicas": ready}
    status = {"observedGeneration": deployment["metadata"]["generation"], **{key: count for key, count in counts.items() if count}}
    found = {key: value for key, value in (deployment.get("status") or {}).items() if key in {"observedGeneration", *counts}}
    if found != status:
        # Somebody was faster: that change is an event of its own.
        with suppress(ChangedError, MissingObjectError):
            same = {"op": "test", "path": "/metadata/resourceVersion", "value": deployment["metadata"]["resourceVersion"]}
            api.patch("Deployment", f"{deployment['metadata']['name']}/status", [same, {"op": "add", "path": "/status", "value": status}])


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
    return Plan.model_validate({"strategy": strategy, "steps": steps, "analysis": METRICS, **fast, **changes})


def site_of(api: Api, channel: FileChannel, *, fails: str = "") -> Site:
    """A site over an API."""
    names = Names(namespace=api.namespace)
    script = Script(fails, Switch(Book(api, names)))
    return Site(api=api, names=names, judge=script, published=channel, say=lambda _: None)


def ship(
    api: Api,
    channel: FileChannel,
    release: str,
    strategy: str,
    *,
    run_id: str = "r",
    fails: str = "",
    kind: Literal["rollout", "undo"] = "rollout",
) -> ClusterRollout:
    """What roll_out_cloud and publish_mobile do together; or, as an `undo`, `dual rollout undo`."""
    # Nobody is judged by how fast a busy machine is.
    plan = plan_of(strategy, progress_deadline=120.0, publish_within=120.0)
    machine = begin(site_of(api, channel, fails=fails), RELEASES[release], "", plan, run_id=run_id, kind=kind)
    machine.run()
    channel.publish(RELEASES[release])
    return machine.run(finish=True)


@contextmanager
def controller_of(kubeconfig: Path) -> Iterator[Controller]:
    """A running controller."""
    controller = Controller(kubeconfig)
    controller.start()
    try:
        yield controller
    finally:
        controller.stop()
