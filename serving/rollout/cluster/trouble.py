"""Why pods are not ready, in words, and whether waiting can help."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

from serving.rollout.cluster.api import Api, ForbiddenError, Json
from serving.rollout.cluster.names import Names, query

_FINAL = frozenset({"ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError"})
_LOOPING = "CrashLoopBackOff"
_RESTARTS = 2
"""A container that crashed this often will go on."""
_LOG_LINES = 12
_LOG_CHARACTERS = 1200
_MORE_MEMORY = "Raise the memory of the container server in the template: it has to hold two versions; or use another strategy"
_TOLD = 3
"""Three of a kind tell enough."""


@dataclass(frozen=True)
class Log:
    """The log of a container that ended: it changes no more."""

    pod: str
    uid: str
    container: str
    restarts: int
    ended: str
    """The id of what ended: between an end and the next start the number of restarts stays."""


@dataclass
class Logs:
    """Reads each log once, however often it is asked for."""

    api: Api
    _read: dict[Log, str] = field(default_factory=dict)

    def tail(self, log: Log) -> str:
        """The end of the log in words; empty if there is none, or if it can't be had now: then the next one to ask reads again."""
        if log not in self._read:
            found = [self.api.find_logs(log.pod, log.container, lines=_LOG_LINES, previous=True)]
            if not found[0]:
                found.append(self.api.find_logs(log.pod, log.container, lines=_LOG_LINES))
            if found[-1] is None:
                return ""
            self._read[log] = found[-1].strip()[-_LOG_CHARACTERS:]
        text = self._read[log]
        return f"; its log ends with: {text}" if text else ""


@dataclass(frozen=True)
class Trouble:
    """One thing that keeps pods from getting ready."""

    text: str
    final: bool
    """Whether it will not pass by itself."""
    fix: str = ""
    """What a person can do about it."""
    log: Log | None = None
    """Where more is to be read."""
    instead: str = ""
    """What to add to the text if that log says nothing."""


def troubles(logs: Logs, names: Names, revision: str, deployment: Json | None) -> list[Trouble]:
    """Everything that keeps the revision's pods from getting ready, most telling first; each text names its object."""
    if deployment is None:
        return [gone(names, revision)]
    found = [*_of_deployment(names, deployment)]
    for pod in logs.api.list("Pod", query(names.selector(revision))):
        found += _of_pod(logs.api.namespace, pod)
    return _told(logs, found)


def troubles_of_one(logs: Logs, pod: Json) -> list[Trouble]:
    """Everything that keeps a pod which nobody would replace from answering, most telling first: there, what ended stays ended."""
    return _told(logs, [*_of_end(pod), *_of_pod(logs.api.namespace, pod)])


def _told(logs: Logs, found: list[Trouble]) -> list[Trouble]:
    """Sorted, and with the ends of logs where they are told."""
    every = sorted(dict.fromkeys(found), key=lambda trouble: not trouble.final)
    return [*(_with_log(logs, each) for each in every[:_TOLD]), *every[_TOLD:]]


def _with_log(logs: Logs, trouble: Trouble) -> Trouble:
    if trouble.log is None:
        return trouble
    return replace(trouble, text=trouble.text + (logs.tail(trouble.log) or trouble.instead), log=None)


def warnings_of(api: Api, pod: str) -> list[Trouble]:
    """What the cluster's Events say of a pod (a volume that can't be mounted is nowhere else); nothing if they may not be read."""
    try:
        events = list(api.list("Event", "", fields=f"involvedObject.kind=Pod,involvedObject.name={pod},type=Warning"))
    except ForbiddenError:
        return []
    return [Trouble(f"Pod {pod}: {event.get('reason', '')}: {event.get('message', '')}", final=False) for event in reversed(events)]


def crushed(api: Api, names: Names, revision: str, since: str) -> list[Trouble]:
    """The revision's pods of which a container ran out of memory after a moment (UTC, ISO 8601): more than it can bear was loaded."""
    pods = list(api.list("Pod", query(names.selector(revision))))
    # A kubelet tells whole seconds.
    begin = datetime.fromisoformat(since).replace(microsecond=0)
    return [
        Trouble(f"Pod {pod['metadata']['name']}, container {status['name']} {_how(ended)}", final=True, fix=_MORE_MEMORY)
        for pod in pods
        for status in (pod.get("status") or {}).get("containerStatuses") or []
        for ended in [(status.get(part) or {}).get("terminated") or {} for part in ("state", "lastState")]
        if ended.get("reason") == "OOMKilled" and datetime.fromisoformat(ended["finishedAt"]) >= begin
    ]


def gone(names: Names, revision: str) -> Trouble:
    """A revision's Deployment is not there any more."""
    who = f"Find out who did it (kubectl -n {names.namespace} get events), then run again"
    return Trouble(f"Deployment {names.deployment(revision)} was deleted by somebody", final=True, fix=who)


def explain(found: list[Trouble]) -> str:
    """The troubles in one line."""
    return "; ".join(trouble.text for trouble in found[:_TOLD]) or "no pod says why"


def way_out(found: list[Trouble]) -> str:
    """What to do about the first of them that has a remedy; empty if none has."""
    return next((trouble.fix for trouble in found if trouble.fix), "")


def _of_deployment(names: Names, deployment: Json) -> Iterator[Trouble]:
    for condition in (deployment.get("status") or {}).get("conditions") or []:
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            message = condition.get("message", "")
            is_full = "exceeded quota" in message
            room = f"Make room: kubectl -n {names.namespace} describe resourcequota"
            fix = room if is_full else f"Correct the template Deployment {names.template}, then run again"
            # A quota may be raised, or other pods may end; a pod that admission refuses is refused again.
            final = "forbidden" in message and not is_full
            yield Trouble(f"Deployment {deployment['metadata']['name']} can't make pods: {message}", final, fix)


def _of_pod(namespace: str, pod: Json) -> Iterator[Trouble]:
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp"):
        return
    look = f"Look: kubectl -n {namespace} describe pod {name}"
    if status.get("reason") == "Evicted":
        yield Trouble(f"Pod {name} was evicted: {status.get('message', '')}", final=False, fix=look)
        return
    found = [each for one in _containers(status) for each in _of_container(namespace, pod, one)]
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            found.append(Trouble(f"Pod {name} has no node: {condition.get('message', '')}", final=False, fix=look))
        elif condition["type"] == "Ready" and condition["status"] != "True" and not found:
            node = pod["spec"].get("nodeName", "?")
            said = condition.get("message") or "it still starts, its probe fails, or the node is gone"
            found.append(Trouble(f"Pod {name} on node {node} is not ready: {said}", final=False, fix=look))
    yield from found


def _containers(status: Json) -> list[Json]:
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _of_container(namespace: str, pod: Json, status: Json) -> Iterator[Trouble]:
    waiting = (status.get("state") or {}).get("waiting") or {}
    reason, restarts = waiting.get("reason", ""), status.get("restartCount", 0)
    name = pod["metadata"]["name"]
    where = f"Pod {name}, container {status['name']}"
    if reason not in _FINAL and (reason == _LOOPING or restarts):
        how = _how((status.get("lastState") or {}).get("terminated") or {})
        fix = f"Look: kubectl -n {namespace} logs {name} -c {status['name']} --previous"
        final = reason == _LOOPING and restarts >= _RESTARTS
        yield Trouble(f"{where} {how}, {restarts} restart(s)", final, fix, _log(pod, status))
    elif reason in _FINAL or waiting.get("message"):
        fix = "Correct the template Deployment, or what it needs, then run again"
        yield Trouble(f"{where}: {reason}: {waiting.get('message', '')}", final=reason in _FINAL, fix=fix)


def _of_end(pod: Json) -> Iterator[Trouble]:
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    initial, main = status.get("initContainerStatuses") or [], status.get("containerStatuses") or []
    for each in [*initial, *main]:
        ended = (each.get("state") or {}).get("terminated")
        # An init container is meant to end, a server is not.
        if ended and (ended.get("exitCode") or each in main):
            said = f"; it said: {ended['message'].strip()}" if ended.get("message") else ""
            yield Trouble(f"Pod {name}, container {each['name']} {_how(ended)}", final=True, log=_log(pod, each), instead=said)
    if status.get("phase") == "Failed" and status.get("reason"):
        yield Trouble(f"Pod {name} was ended: {status['reason']}: {status.get('message', '')}", final=True)


def _how(ended: Json) -> str:
    return f"ended with code {ended.get('exitCode', '?')}" + (" (out of memory)" if ended.get("reason") == "OOMKilled" else "")


def _log(pod: Json, status: Json) -> Log:
    ended = (status.get("state") or {}).get("terminated") or (status.get("lastState") or {}).get("terminated") or {}
    return Log(pod["metadata"]["name"], pod["metadata"]["uid"], status["name"], status.get("restartCount", 0), ended.get("containerID", ""))
