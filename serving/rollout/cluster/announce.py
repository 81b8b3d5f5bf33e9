"""Telling people of every transition: the commands that they may give next, an Event in Kubernetes, and a message to a webhook."""

from datetime import UTC, datetime

from components.core.errors import DualError
from serving.rollout.cluster.api import Api, Json
from serving.rollout.cluster.names import ACTION, MANAGER, Names
from serving.rollout.cluster.state import ClusterRollout, Phase, Say
from serving.rollout.notify import NotificationSettings, Notifier, Transition

_BAD: frozenset[Phase] = frozenset({"aborting", "aborted", "rolled_back", "superseded"})
_ASKED: dict[Phase, tuple[str, ...]] = {
    "canary": ("promote", "pause", "abort"),
    "analyze": ("promote", "pause", "abort"),
    "paused": ("promote", "resume", "abort"),
    "prepare": ("abort",),
    "validate_preview": ("abort",),
    "promote": ("abort",),
    "post_analysis": ("abort",),
}
_UNDONE: frozenset[Phase] = frozenset({"drain", "promoted", "rolled_back"})
_MOST_EVENT = 1024


def commands(names: Names, state: ClusterRollout, store: str) -> dict[str, str]:
    """What a person may do now: action → the command to copy."""
    dual = f"--store {store} --namespace {names.namespace}" + (f" --name {names.name}" if names.name != "classifier" else "")
    if state.phase in _UNDONE:
        return {"undo": f"dual rollout undo {dual}"}
    if state.phase == "aborted":
        return {"again": f"dual rollout start {state.candidate.release} {dual}"}
    return {action: f"dual rollout {action} {dual}" for action in _ASKED.get(state.phase, ())}


def kubectl_commands(names: Names, state: ClusterRollout) -> dict[str, str]:
    """The same without Python, where a process runs the rollout, or a follower (which an undo after the end needs)."""
    annotate = f"kubectl -n {names.namespace} annotate configmap {names.state} --overwrite {ACTION}="
    if state.phase in _UNDONE:
        return {"undo": f"{annotate}undo    # where a follower runs"}
    return {action: annotate + action for action in _ASKED.get(state.phase, ())}


def command_lines(names: Names, state: ClusterRollout, store: str) -> list[str]:
    """All of them as lines for a terminal."""
    found = [*commands(names, state, store).items(), *kubectl_commands(names, state).items()]
    return [f"{action + ':':<8} {command}" for action, command in found]


class Announcer:
    """Hears of transitions; whatever goes wrong in telling is said and never stops a rollout."""

    def __init__(self, api: Api, names: Names, store: str, notifications: NotificationSettings, say: Say) -> None:
        """`store` is the address of the store, for the commands."""
        self._api, self._names, self._store, self._say = api, names, store, say
        self._notifier = Notifier(notifications, say)

    def __call__(self, state: ClusterRollout) -> None:
        """Tell of the state that was just saved."""
        for line in command_lines(self._names, state, self._store):
            self._say(f"  {line}")
        self._record(state)
        self._notifier.send(self._transition(state))

    def _transition(self, state: ClusterRollout) -> Transition:
        last = state.events[-1]
        return Transition(
            at=last.at,
            name=self._names.name,
            namespace=self._names.namespace,
            release=state.candidate.release,
            stable=state.stable.release if state.stable else "",
            phase=state.phase,
            text=last.text,
            reason=state.reason,
            asked=state.asked,
            achieved=state.achieved,
            epoch=state.epoch,
            run_id=state.run_id,
            commands=commands(self._names, state, self._store),
        )

    def _record(self, state: ClusterRollout) -> None:
        try:
            self._api.create("Event", event_of(self._names, state, uid_of(self._api, self._names)))
        except DualError as error:
            self._say(f"no Event was recorded: {error}")


def uid_of(api: Api, names: Names) -> str:
    """The template Deployment's uid, by which `kubectl describe` finds its Events; empty without a template."""
    found = api.find("Deployment", names.template)
    return found["metadata"]["uid"] if found else ""


def event_of(names: Names, state: ClusterRollout, uid: str) -> Json:
    """The Event on the template Deployment: `kubectl describe deployment` shows the course of the rollout."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    last = state.events[-1]
    involved = {"apiVersion": "apps/v1", "kind": "Deployment", "name": names.template, "namespace": names.namespace, "uid": uid}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{names.name}-rollout-", "namespace": names.namespace},
        "involvedObject": involved,
        "type": "Warning" if state.phase in _BAD else "Normal",
        "reason": "Rollout" + "".join(part.capitalize() for part in state.phase.split("_")),
        "message": f"{state.candidate.release}: {last.text}"[:_MOST_EVENT],
        "source": {"component": MANAGER},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
