"""How `dual rollout status` shows a rollout on a terminal."""

import time
from typing import Any

import click

_WATCH_SECONDS = 1.0


def show(api: Any, names: Any, state: Any, store: str) -> None:
    """Print the state, the live objects, the last measurements and what may be done next."""
    if state is None:
        click.echo(f"there never was a rollout of {names.name} in namespace {names.namespace}")
        return
    click.echo(f"{state.kind} of {state.candidate.release}: {state.phase}" + (f" ({state.reason})" if state.reason else ""))
    for line in [*_facts(api, names, state), *_checks(state), *_course(state)]:
        click.echo(f"  {line}")
    from serving.rollout.cluster.announce import command_lines

    for line in command_lines(names, state, store):
        click.echo(f"  {line}")


def _facts(api: Any, names: Any, state: Any) -> list[str]:
    from serving.rollout.cluster.holding import holdings_of
    from serving.rollout.cluster.names import REVISION, query
    from serving.rollout.cluster.objects import live_of

    service = api.get("Service", names.service)
    live, holdings = live_of(service), holdings_of(service)
    whom = "every revision" if live.shared else live.stable or "nobody"
    lines = [
        f"live traffic  {whom}; weight of the candidate {state.achieved:.1f} % (asked {state.asked:g} %)",
        f"epoch         {state.epoch}, run {state.run_id}",
    ]
    for each in api.list("Deployment", query(names.labels)):
        revision = each["metadata"]["labels"].get(REVISION)
        if revision and each["metadata"]["name"] != names.template:
            ready = (each.get("status") or {}).get("readyReplicas", 0)
            lines.append(f"pods          {revision}: {ready} of {each['spec'].get('replicas', 0)} ready")
            if revision in holdings:
                lines.append(f"holds         {_holds(holdings[revision])}")
    return lines


def _holds(holding: Any) -> str:
    labels = {holding.stable: "stable", holding.canary: "canary"}
    return ", ".join(f"{release} ({labels.get(release, 'no label')})" for release in holding.versions().values())


def _checks(state: Any) -> list[str]:
    return [f"{'ok ' if check.passed else 'BAD'}           {check.text}" for check in state.checks]


def _course(state: Any) -> list[str]:
    return [line_of(event) for event in state.events[-12:]]


def line_of(event: Any) -> str:
    """One event in one line."""
    return f"{event.at[11:19]}  {event.phase:<16} {event.text}"


def watch_transitions(book: Any, state: Any) -> None:
    """Print each new event until the rollout is over."""
    seen = {(event.at, event.phase, event.text) for event in state.events}
    while not state.is_over():
        time.sleep(_WATCH_SECONDS)
        state = book.read()
        if state is None:
            return
        for event in state.events:
            if (event.at, event.phase, event.text) not in seen:
                seen.add((event.at, event.phase, event.text))
                click.echo(f"  {line_of(event)}")
