"""Telling people of every transition on an endpoint: the commands that they may give next, and a message to a webhook."""

from serving.rollout.cluster.state import Phase
from serving.rollout.endpoint.bodies import display_name
from serving.rollout.endpoint.state import EndpointRollout
from serving.rollout.endpoint.turn import Say
from serving.rollout.notify import NotificationSettings, Notifier, Transition

_ASKED: dict[Phase, tuple[str, ...]] = {
    "canary": ("promote", "pause", "abort"),
    "analyze": ("promote", "pause", "abort"),
    "paused": ("promote", "resume", "abort"),
    "prepare": ("abort",),
    "promote": ("abort",),
    "post_analysis": ("abort",),
}
_UNDONE: frozenset[Phase] = frozenset({"drain", "promoted", "rolled_back"})


def commands(state: EndpointRollout, store: str) -> dict[str, str]:
    """What a person may do now: action → the command to copy."""
    rest = f"--target vertex --store {store}"
    if state.phase in _UNDONE:
        return {"undo": f"dual rollout undo {rest}"}
    if state.phase == "aborted":
        return {"again": f"dual rollout start {state.candidate.release} {rest}"}
    return {action: f"dual rollout {action} {rest}" for action in _ASKED.get(state.phase, ())}


def command_lines(state: EndpointRollout, store: str) -> list[str]:
    """The same as lines for a terminal."""
    return [f"{action + ':':<8} {command}" for action, command in commands(state, store).items()]


class Announcer:
    """Hears of transitions; whatever goes wrong in telling is said and never stops a rollout."""

    def __init__(self, store: str, notifications: NotificationSettings, say: Say) -> None:
        """`store` is the address of the store, for the commands."""
        self._store, self._say, self._notifier = store, say, Notifier(notifications, say)

    def __call__(self, state: EndpointRollout) -> None:
        """Tell of the state that was just saved."""
        for line in command_lines(state, self._store):
            self._say(f"  {line}")
        last = state.events[-1]
        self._notifier.send(
            Transition(
                at=last.at,
                name=state.name,
                namespace=f"endpoint {display_name(state.name, state.place)}",
                release=state.candidate.release,
                stable=state.stable.release if state.stable else "",
                phase=state.phase,
                text=last.text,
                reason=state.reason,
                asked=state.asked,
                achieved=state.counted_share(),
                epoch=state.epoch,
                run_id=state.run_id,
                commands=commands(state, self._store),
            )
        )
