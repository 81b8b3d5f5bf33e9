"""Why pods are not ready, in words, and whether waiting can help."""

from collections.abc import Iterator
from dataclasses import dataclass

from serving.rollout.cluster.api import Api, ForbiddenError, Json
from serving.rollout.cluster.names import Names, query

_FINAL = frozenset({"ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError"})
_LOOPING = "CrashLoopBackOff"
_RESTARTS = 2
"""A container that crashed this often will go on."""
_LOG_LINES = 12
_LOG_CHARACTERS = 1200


@dataclass(frozen=True)
class Trouble:
    """One thing that keeps pods from getting ready."""

    text: str
    final: bool
    """Whether it will not pass by itself."""


def troubles(api: Api, names: Names, revision: str, deployment: Json | None) -> list[Trouble]:
    """Everything that keeps the revision's pods from getting ready, most telling first; each text names its object."""
    if deployment is None:
        return [Trouble(f"Deployment {names.deployment(revision)} was deleted", final=True)]
    found = [*_of_deployment(deployment)]
    for pod in api.list("Pod", query(names.selector(revision))):
        found += _of_pod(api, pod)
    return sorted(dict.fromkeys(found), key=lambda trouble: not trouble.final)


def troubles_of_one(api: Api, pod: Json) -> list[Trouble]:
    """Everything that keeps a pod which nobody would replace from answering, most telling first: there, what ended stays ended."""
    found = [*_of_end(api, pod), *_of_pod(api, pod)]
    return sorted(dict.fromkeys(found), key=lambda trouble: not trouble.final)


def warnings_of(api: Api, pod: str) -> list[Trouble]:
    """What the cluster's Events say of a pod (a volume that can't be mounted is nowhere else); nothing if they may not be read."""
    try:
        events = list(api.list("Event", "", fields=f"involvedObject.kind=Pod,involvedObject.name={pod},type=Warning"))
    except ForbiddenError:
        return []
    return [Trouble(f"Pod {pod}: {event.get('reason', '')}: {event.get('message', '')}", final=False) for event in reversed(events)]


def explain(found: list[Trouble]) -> str:
    """The troubles in one line; three of a kind tell enough."""
    return "; ".join(trouble.text for trouble in found[:3]) or "no pod says why"


def _of_deployment(deployment: Json) -> Iterator[Trouble]:
    for condition in (deployment.get("status") or {}).get("conditions") or []:
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            message = condition.get("message", "")
            # A quota may be raised, or other pods may end; a pod that admission refuses is refused again.
            final = "forbidden" in message and "exceeded quota" not in message
            yield Trouble(f"Deployment {deployment['metadata']['name']} can't make pods: {message}", final)


def _of_pod(api: Api, pod: Json) -> Iterator[Trouble]:
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp"):
        return
    if status.get("reason") == "Evicted":
        yield Trouble(f"Pod {name} was evicted: {status.get('message', '')}", final=False)
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield Trouble(f"Pod {name} has no node: {condition.get('message', '')}", final=False)
    for each in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        yield from _of_container(api, name, each)


def _of_container(api: Api, pod: str, status: Json) -> Iterator[Trouble]:
    waiting = (status.get("state") or {}).get("waiting") or {}
    reason, restarts = waiting.get("reason", ""), status.get("restartCount", 0)
    where = f"Pod {pod}, container {status['name']}"
    if reason in _FINAL:
        yield Trouble(f"{where}: {reason}: {waiting.get('message', '')}", final=True)
    elif reason == _LOOPING or restarts:
        how = _how((status.get("lastState") or {}).get("terminated") or {})
        log = _tail(api, pod, status["name"])
        yield Trouble(f"{where} {how}, {restarts} restart(s){log}", final=reason == _LOOPING and restarts >= _RESTARTS)


def _of_end(api: Api, pod: Json) -> Iterator[Trouble]:
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    initial, main = status.get("initContainerStatuses") or [], status.get("containerStatuses") or []
    for each in [*initial, *main]:
        ended = (each.get("state") or {}).get("terminated")
        # An init container is meant to end, a server is not.
        if ended and (ended.get("exitCode") or each in main):
            log = _tail(api, name, each["name"]) or (f"; it said: {ended['message'].strip()}" if ended.get("message") else "")
            yield Trouble(f"Pod {name}, container {each['name']} {_how(ended)}{log}", final=True)
    if status.get("phase") == "Failed" and status.get("reason"):
        yield Trouble(f"Pod {name} was ended: {status['reason']}: {status.get('message', '')}", final=True)


def _how(ended: Json) -> str:
    return f"ended with code {ended.get('exitCode', '?')}" + (" (out of memory)" if ended.get("reason") == "OOMKilled" else "")


def _tail(api: Api, pod: str, container: str) -> str:
    text = api.logs(pod, container, lines=_LOG_LINES, previous=True) or api.logs(pod, container, lines=_LOG_LINES)
    return f"; its log ends with: {text.strip()[-_LOG_CHARACTERS:]}" if text.strip() else ""
