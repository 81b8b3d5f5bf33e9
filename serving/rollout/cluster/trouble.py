"""Why pods are not ready, in words, and whether waiting can help."""

from collections.abc import Iterator
from dataclasses import dataclass

from serving.rollout.cluster.api import Api, Json
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
        last = (status.get("lastState") or {}).get("terminated") or {}
        how = f"ended with code {last.get('exitCode', '?')}" + (" (out of memory)" if last.get("reason") == "OOMKilled" else "")
        log = _tail(api, pod, status["name"])
        yield Trouble(f"{where} {how}, {restarts} restart(s){log}", final=reason == _LOOPING and restarts >= _RESTARTS)


def _tail(api: Api, pod: str, container: str) -> str:
    text = api.logs(pod, container, lines=_LOG_LINES, previous=True) or api.logs(pod, container, lines=_LOG_LINES)
    return f"; its log ends with: {text.strip()[-_LOG_CHARACTERS:]}" if text.strip() else ""
