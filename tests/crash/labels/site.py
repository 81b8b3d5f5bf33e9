"""A served model whose pods are hosts: applied objects, rollouts by labels, and what must hold at every moment of them."""

from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from serving.rollout.analysis.pods import PodTarget, RefusedError, UnreachableError
from serving.rollout.cluster.api import Api, Json
from serving.rollout.cluster.begin import Site, begin
from serving.rollout.cluster.holding import holdings_of
from serving.rollout.cluster.machine import Machine
from serving.rollout.cluster.names import REVISION, Names
from serving.rollout.cluster.objects import live_of
from serving.rollout.cluster.revision import revision_of
from serving.rollout.cluster.site import witness_of
from serving.rollout.cluster.state import Book, ClusterRollout
from serving.rollout.cluster.turn import Witness
from tests.crash.cluster_site import RELEASES, REPLICAS_WANTED, FileChannel, Script, Switch, plan_of, template
from tests.crash.labels.kubelets import Kubelets

VERSIONS = {int(release, 16): letter for letter, release in RELEASES.items()}


def host_template(image: str = "server:1", replicas: int = REPLICAS_WANTED) -> Json:
    """The applied Deployment with the component labels."""
    applied = template(image, replicas)
    applied["spec"]["template"]["spec"]["initContainers"][0]["env"].append({"name": "DUAL_HOST", "value": "template"})
    return applied


class Page:
    """A pod's pages at the stand-in for its kubelet."""

    def __init__(self, address: str) -> None:
        self._address, parts = address, urlsplit(address)
        self._http, self._folder = HTTPConnection(parts.netloc, timeout=10), parts.path

    def get(self, path: str) -> str:
        try:
            self._http.request("GET", f"{self._folder}{path}")
            answer = self._http.getresponse()
            text = answer.read().decode()
        except (OSError, HTTPException) as error:
            raise UnreachableError(str(error), where=self._address) from None
        if answer.status != 200:
            raise RefusedError(f"answered {answer.status}", answer.status, where=self._address)
        return text

    def predict(self, image: bytes) -> dict[str, Any]:
        raise AssertionError("the judge of these tests asks no images")

    def close(self) -> None:
        self._http.close()


def witness(pages: str, namespace: str) -> Witness:
    """Asks the pods of a namespace what they hold."""
    return witness_of(lambda target: Page(f"{pages}/{namespace}/{target.name}"), "classifier")


def machine_of(
    api: Api, channel: FileChannel, pages: str, release: str, *, run_id: str = "r", fails: str = "", kind: Any = "rollout", **plan: Any
) -> Machine:
    """A rollout by labels that just began."""
    names = Names(namespace=api.namespace)
    judge = Script(fails, Switch(Book(api, names)))
    site = Site(api=api, names=names, judge=judge, published=channel, say=lambda _: None, held=witness(pages, api.namespace))
    return begin(site, RELEASES[release], "", plan_of(**{"strategy": "labels", **plan}), run_id=run_id, kind=kind)


def ship(
    api: Api,
    channel: FileChannel,
    pages: str,
    release: str,
    *,
    run_id: str = "r",
    fails: str = "",
    kind: Literal["rollout", "undo"] = "rollout",
    **plan: Any,
) -> ClusterRollout:
    """What roll_out_cloud and publish_mobile do together; or, as an `undo`, `dual rollout undo`."""
    machine = machine_of(api, channel, pages, release, run_id=run_id, fails=fails, kind=kind, **plan)
    machine.run()
    channel.publish(RELEASES[release])
    return machine.run(finish=True)


def host_of(api: Api) -> str:
    """The host that the template makes."""
    return revision_of("", "", api.get("Deployment", "classifier")).revision


def stable_of(pages: str, namespace: str, pods: list[Json]) -> dict[str, str]:
    """Pod → the release, by its letter, that its label stable selects; empty where it selects none."""
    targets = [PodTarget(pod["metadata"]["name"], "127.0.0.1", 0, 0, "") for pod in pods]
    held = witness(pages, namespace)(targets)
    return {pod.name: VERSIONS.get(each.labels.get("stable", 0), "") for pod, each in held.items()}


def live_pods(api: Api) -> list[Json]:
    """The ready pods that the live Service selects."""
    live = live_of(api.get("Service", "classifier"))
    pods = api.list("Pod", f"{REVISION}={live.stable}") if live.stable else []
    return [pod for pod in pods if any(each["status"] == "True" for each in (pod.get("status") or {}).get("conditions") or [])]


def violations(api: Api, channel: FileChannel, state: ClusterRollout | None, pages: str) -> Iterator[str]:
    """Every invariant that does not hold at this moment, read from the objects and from the servers."""
    service = api.get("Service", "classifier")
    live, holdings = live_of(service), holdings_of(service)
    promoted = next((letter for letter, release in RELEASES.items() if release == channel.release()), "")
    pods = live_pods(api)
    seen = stable_of(pages, api.namespace, pods)
    # No strategy here leaves a gap, but the first deployment begins with one.
    if live.stable and len(pods) < REPLICAS_WANTED:
        yield f"live traffic goes to {len(pods)} ready pods of {live.stable}"
    if live.stable and channel.release() and not (state is None or state.is_over()):
        # For as long as something might go back, what is promoted stays loaded, here or in the pods of before.
        held = [host for host, holding in holdings.items() if channel.release() in holding.releases and _wanted(api, host)]
        if not held:
            yield f"the promoted release is not held: {holdings}"
    allowed = {promoted} if promoted else set(RELEASES)
    if state is not None and state.phase in ("promote", "post_analysis", "drain", "aborting"):
        allowed |= {letter for letter, release in RELEASES.items() if release == state.candidate.release}
    if state is not None and state.phase == "prepare":
        # What was superseded or undone has the label until the new run has moved it.
        allowed |= set(RELEASES)
    yield from (f"{pod} answers as {letter or 'nobody'}, and not as {allowed}" for pod, letter in seen.items() if letter not in allowed)
    if state is not None and state.phase in ("post_analysis", "drain") and state.kind == "rollout":
        candidate = next(letter for letter, release in RELEASES.items() if release == state.candidate.release)
        yield from (f"{state.phase}, and {pod} answers as {letter}" for pod, letter in seen.items() if letter != candidate)


def _wanted(api: Api, host: str) -> int:
    found = api.find("Deployment", f"classifier-{host}")
    return found["spec"].get("replicas", 0) if found else 0


def gaps(kubelets: Kubelets, namespace: str) -> list[str]:
    """When the label stable of a pod led nowhere, though it had led somewhere."""
    return [gap for pods in list(kubelets.wards[namespace].pods.values()) for pod in pods for gap in pod.gaps]


def channel_at(path: str) -> FileChannel:
    """The channel of an order."""
    return FileChannel(Path(path))
