"""Starting a rollout or an undo on an endpoint, or taking one over: who owns it from now on, and what comes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from components.core.stores import Store
from serving.rollout.endpoint.bodies import EPOCH, Json, display_name
from serving.rollout.endpoint.machine import Judge, Machine
from serving.rollout.endpoint.service import Service
from serving.rollout.endpoint.settings import EndpointPlace, EndpointPlan
from serving.rollout.endpoint.state import Book, Deployment, EndpointRollout, Phase
from serving.rollout.endpoint.turn import Clock, Say, deployments
from serving.rollout.state import stamp

Kind = Literal["rollout", "undo"]


class Published(Protocol):
    """What the store says of the pair."""

    def release(self) -> str:
        """The release that the channel names; empty before the first."""
        ...

    def sequence(self) -> int:
        """The channel's sequence; 0 before the first."""
        ...


@dataclass(frozen=True, kw_only=True)
class Site:
    """One served model on one endpoint, and everything that a rollout there needs besides the release."""

    store: Store
    service: Service
    name: str
    place: EndpointPlace
    judge: Judge
    published: Published
    say: Say
    heard: Callable[[EndpointRollout], None] = lambda _: None
    clock: Clock = field(default_factory=Clock)


def begin(site: Site, release: str, plan: EndpointPlan, *, run_id: str, kind: Kind = "rollout") -> Machine:
    """The machine that brings a release to all of our traffic, under a new epoch; the state says so already.

    A rollout of the same release that is not over is taken over where it stands; another one is superseded. A release that has all our
    traffic and is published needs nothing: the machine is over, and nothing was written. Raises `ConflictError` if others begin at the
    same time, `UsageError` if the endpoint is somebody else's.
    """
    book = Book(site.store)
    before = book.read()
    if before is not None and not before.is_over() and (before.candidate.release, before.kind) == (release, kind):
        return take_over(site, run_id, book, before)
    endpoint = site.service.find_endpoint(display_name(site.name, site.place), site.name)
    served = deployments(endpoint, site.name) if endpoint else {}
    live = _live(endpoint, served)
    if before is not None and before.is_over() and live and live.release == release == site.published.release():
        over = before.model_copy(update={"phase": "promoted", "candidate": live, "endpoint": endpoint["name"] if endpoint else ""})
        return machine_of(site, book, over)
    state = _fresh(site, release, plan, before, endpoint, live=live, run_id=run_id, kind=kind)
    book.save(state)
    return _announced(site, book, state)


def take_over(site: Site, run_id: str, book: Book, before: EndpointRollout) -> Machine:
    """The machine of a rollout that is not over, under a new epoch, in the phase where it stands."""
    text = f"epoch {before.epoch + 1}: took over from run {before.run_id}"
    now = site.clock.now()
    # Nobody waited while the time ran out; but a pair that is not published in time goes back.
    again = before.phase != "drain" and (before.phase == "aborting" or now >= datetime.fromisoformat(before.deadline))
    within = before.plan.progress_deadline if again else None
    changes = {"epoch": before.epoch + 1, "run_id": run_id, "action": before.action}
    state = before.to(before.phase, text, now=now, within=within, **changes)
    book.save(state)
    return _announced(site, book, state)


def machine_of(site: Site, book: Book, state: EndpointRollout) -> Machine:
    """A machine in that state."""
    published = site.published
    return Machine(
        store=site.store,
        service=site.service,
        book=book,
        state=state,
        say=site.say,
        published=lambda release: published.release() == release,
        heard=site.heard,
        clock=site.clock,
        judge=site.judge,
    )


def _announced(site: Site, book: Book, state: EndpointRollout) -> Machine:
    site.say(f"{state.phase}: {state.events[-1].text}")
    site.heard(state)
    return machine_of(site, book, state)


def _live(endpoint: Json | None, served: dict[str, Deployment]) -> Deployment | None:
    """Our deployed model with the largest share; None if none has any."""
    split = endpoint.get("trafficSplit", {}) if endpoint else {}
    shares = [(split.get(identity, 0), identity) for identity in served]
    largest = max(shares, default=(0, ""))
    return served[largest[1]] if largest[0] else None


def _fresh(
    site: Site,
    release: str,
    plan: EndpointPlan,
    before: EndpointRollout | None,
    endpoint: Json | None,
    *,
    live: Deployment | None,
    run_id: str,
    kind: Kind,
) -> EndpointRollout:
    now, epoch = site.clock.now(), 1 + max(before.epoch if before else 0, _marked(endpoint))
    alive = before is not None and not before.is_over()
    # While an unpublished candidate has traffic, what it came from is what everything goes back to.
    unpublished = before is not None and alive and site.published.release() != before.candidate.release
    stable = before.stable if before is not None and unpublished else live
    text = f"epoch {epoch}: {kind} of {release} beside {stable.release if stable else 'nothing'}"
    history = before.history if before else []
    if before is not None and alive:
        outcome: Phase = "superseded" if unpublished else "promoted"
        history = before.finished(outcome, f"superseded by {release}" if unpublished else "", now)
        text = f"{text}; supersedes the {before.kind} of {before.candidate.release} (run {before.run_id}, {before.phase})"
    is_stable = stable is not None and stable.release == release
    state = EndpointRollout(
        epoch=epoch,
        phase="prepare",
        kind=kind,
        name=site.name,
        candidate=stable if stable is not None and is_stable else _candidate(release, endpoint, site.name, kind),
        stable=stable,
        endpoint=endpoint["name"] if endpoint else "",
        run_id=run_id,
        sequence=site.published.sequence(),
        place=site.place,
        plan=plan,
        started=stamp(now),
        deadline=stamp(now),
        history=history,
    )
    # What has the live traffic already is not deployed a second time for a canary of itself.
    opening: Phase = "promote" if is_stable else "prepare"
    return state.to(opening, text, now=now, within=plan.progress_deadline)


def _candidate(release: str, endpoint: Json | None, name: str, kind: Kind) -> Deployment:
    """At an undo the deployed model that is still there, which makes it a matter of the split alone."""
    kept = [each for each in deployments(endpoint, name).values() if each.release == release] if endpoint else []
    return kept[0] if kept and kind == "undo" else Deployment(release=release)


def _marked(endpoint: Json | None) -> int:
    """The epoch that the endpoint remembers, which may be newer than a state that somebody deleted."""
    found = (endpoint or {}).get("labels", {}).get(EPOCH, "0")
    return int(found) if found.isdigit() else 0
