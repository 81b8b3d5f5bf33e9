"""`dual rollout … --target vertex`: the same commands in terms of an endpoint's traffic split. The store knows the endpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipelines.cli.options import print_json

Say = Callable[[str], None]


def start(store: Any, release: str, name: str, plan_file: Path | None, who: str, say: Say) -> Any:
    """Roll out, publish, and wait until the old model is undeployed; the state then."""
    from serving.rollout.endpoint.actions import ship

    return ship(store, release, name, _settings(store, plan_file), run_id=who, say=say)


def status(store: Any, *, watch: bool, as_json: bool) -> None:
    """Print the state and, with `watch`, what is added to it."""
    from pipelines.cli.rollout_view import watch_transitions
    from serving.rollout.endpoint.state import Book

    book = Book(store)
    state = book.read()
    if as_json:
        print_json(state.model_dump(mode="json", by_alias=True) if state else None)
        return
    if state is None:
        click.echo("there never was a rollout on an endpoint")
        return
    _show(state, store.uri)
    if watch:
        watch_transitions(book, state)


def steer(store: Any, action: str, who: str, say: Say) -> Any:
    """Ask the running process for an action, or take the rollout over; the state then."""
    from serving.rollout.endpoint.actions import go_on
    from serving.rollout.endpoint.state import Book

    if ask(store, action):
        return Book(store).read()
    say("no process runs this rollout: taking it over")
    return go_on(store, run_id=who, say=say)


def ask(store: Any, action: str) -> bool:
    """Ask the running process for an action; whether it was heard."""
    from serving.rollout.endpoint.actions import request

    return request(store, action)


def abort(store: Any, reason: str, who: str, say: Say) -> Any:
    """Ask the running process to go back to stable, or do it in its place; the state then."""
    from serving.rollout.endpoint.actions import abort as go_back
    from serving.rollout.endpoint.state import Book

    if ask(store, "abort"):
        return Book(store).read()
    return go_back(store, run_id=who, reason=reason, say=say)


def undo(store: Any, reason: str, who: str, say: Say) -> Any:
    """Both halves back to the release before."""
    from serving.rollout.endpoint.actions import undo as go_back

    return go_back(store, run_id=who, reason=reason, say=say)


def history(store: Any, as_json: bool) -> None:
    """Print the rollouts that are over, newest last."""
    from serving.rollout.endpoint.state import Book

    state = Book(store).read()
    for each in state.history if state else []:
        if as_json:
            print_json(each.model_dump(mode="json"))
        else:
            click.echo(f"{each.epoch:>4}  {each.ended}  {each.candidate.release}  {each.outcome:<11} {each.reason}".rstrip())


def plan(store: Any, name: str, plan_file: Path | None) -> list[tuple[str, str]]:
    """What a rollout would do: (phase, what happens)."""
    from serving.rollout.endpoint.actions import plan_rows

    return plan_rows(store, _settings(store, plan_file), name)


def _settings(store: Any, plan_file: Path | None) -> Any:
    """The section `vertex` in a YAML file, or the place and plan of the store's last rollout; `UsageError` names the key that is wrong."""
    from components.configuration.layers import read_yaml
    from components.core.errors import UsageError
    from components.core.settings import section
    from serving.rollout.endpoint.settings import EndpointSettings
    from serving.rollout.endpoint.state import Book

    if plan_file is not None:
        import json

        return section(json.dumps({"vertex": read_yaml(plan_file)}), "vertex", EndpointSettings)
    state = Book(store).read()
    if state is None:
        fix = "Give --plan FILE with what the settings call roll_out_cloud.vertex: container, machines, plan …"
        raise UsageError("nothing says how the model is to be served", where="--target vertex", fix=fix)
    return EndpointSettings.model_validate({**state.place.model_dump(), "plan": state.plan.model_dump()})


def _show(state: Any, store: str) -> None:
    from serving.rollout.endpoint.announce import command_lines

    click.echo(f"{state.kind} of {state.candidate.release}: {state.phase}" + (f" ({state.reason})" if state.reason else ""))
    share = state.counted_share()
    counted = "no answer was counted in this step" if share is None else f"{share:.1f} % of {sum(state.answered.values())} answers"
    stable = state.stable.release if state.stable else "nothing"
    lines = [
        f"endpoint      {state.endpoint or 'not made yet'}",
        f"traffic       {state.asked:g} % asked for the candidate beside {stable}; {counted}",
        f"epoch         {state.epoch}, run {state.run_id}",
    ]
    lines += [f"{'ok ' if check.passed else 'BAD'}           {check.text}" for check in state.checks]
    lines += [f"{event.at[11:19]}  {event.phase:<16} {event.text}" for event in state.events[-12:]]
    for line in [*lines, *command_lines(state, store)]:
        click.echo(f"  {line}")
