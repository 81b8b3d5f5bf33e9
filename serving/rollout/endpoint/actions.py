"""What people and pipeline steps ask of a rollout on an endpoint. The pair moves as a whole: cloud first, then the channel, or neither."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from components.core.channel import read_channel
from components.core.errors import ConflictError, DualError, RolloutError, StaleError, UsageError
from components.core.release import read_release
from components.core.stores import Store
from components.publish_mobile.publication import check_signing, publish_release, undo_publication
from serving.rollout.cluster.site import StoreChannel
from serving.rollout.endpoint.analyst import EndpointAnalyst
from serving.rollout.endpoint.announce import Announcer
from serving.rollout.endpoint.begin import Site, begin, take_over
from serving.rollout.endpoint.bodies import artifact_uri, container_spec, display_name
from serving.rollout.endpoint.machine import Machine
from serving.rollout.endpoint.service import open_service
from serving.rollout.endpoint.settings import EndpointPlace, EndpointPlan, EndpointSettings
from serving.rollout.endpoint.state import SWITCHED, Book, EndpointRollout, served_release
from serving.rollout.endpoint.turn import Say
from serving.rollout.notify import NotificationSettings
from serving.rollout.traffic import golden_queries

HEARD_WITHIN = 30.0
"""Seconds within which a running process takes an action up; after that whoever asked takes the rollout over."""
_LOOK = 0.5
_NOBODY = NotificationSettings()


def roll_out(store: Store, release: str, name: str, settings: EndpointSettings, *, run_id: str, say: Say) -> EndpointRollout:
    """Bring all our traffic to a release, up to where its pair can be published; the state then (drain, or promoted already).

    A release that this very run has measured and found bad is not shown to clients a second time: Vertex tries failed steps again. Raises
    as `Machine.run`, and `UsageError` before anything is asked if the settings or the store can't do.
    """
    before = Book(store).read()
    if before is not None and before.was_found_bad(release, run_id):
        raise RolloutError(f"this run has tried it already: {before.reason.rstrip('.')}", where=f"release {release}")
    with _open(store, release, name, settings, settings.plan, settings.notifications, say) as site:
        return begin(site, release, settings.plan, run_id=run_id).run()


def ship(store: Store, release: str, name: str, settings: EndpointSettings, *, run_id: str, say: Say) -> EndpointRollout:
    """Roll a release out, publish its pair, and wait until the old model is gone. If the publication fails, the cloud half goes back."""
    check_signing(store, change=False)
    with _open(store, release, name, settings, settings.plan, settings.notifications, say) as site:
        return _complete(store, begin(site, release, settings.plan, run_id=run_id))


def go_on(store: Store, *, run_id: str, say: Say) -> EndpointRollout:
    """Take over the rollout or undo that is not over, and bring it to its end; `UsageError` if there is none."""
    state = unfinished(store)
    with _again(store, state, say) as site:
        return _complete(store, take_over(site, run_id, *_current(store, state.epoch)))


def finish(store: Store, release: str, *, run_id: str, say: Say) -> EndpointRollout | None:
    """After the publication: wait until the old model is undeployed. Nothing to do if it is, or another run sees to it; the state now."""
    state = Book(store).read()
    _keep_whole(store, release, state)
    if state is None or state.is_over() or (state.candidate.release, state.run_id) != (release, run_id):
        return state
    with _again(store, state, say) as site:
        return _drained(store, take_over(site, run_id, *_current(store, state.epoch)))


def abort(store: Store, *, run_id: str, reason: str, say: Say, only_run: str = "") -> EndpointRollout | None:
    """Take over the rollout that is not over, and go back; None if there is none (or, with `only_run`, if it is another run's).

    Raises `UsageError` if its pair is published already: then it is an undo that is wanted.
    """
    state = Book(store).read()
    if state is None or state.is_over() or (only_run and state.run_id != only_run):
        return None
    if StoreChannel(store, state.sequence).release() == state.candidate.release and state.phase in SWITCHED:
        what = f"the pair of {state.candidate.release} is published already"
        raise UsageError(what, where=f"endpoint {state.endpoint}", fix="Take both halves back with: dual rollout undo --target vertex")
    with _again(store, state, say) as site:
        aborted = take_over(site, run_id, *_current(store, state.epoch)).abort(reason)
    _keep_whole(store, aborted.candidate.release, aborted)
    return aborted


def undo(store: Store, *, run_id: str, reason: str, say: Say) -> EndpointRollout | None:
    """Go back to the release before, both halves: traffic first, then the channel. A matter of the split while the old model is deployed.

    A rollout that is not published yet is aborted instead; an undo that is under way is completed, so that it may be repeated. Raises
    `UsageError` if there is nothing before.
    """
    state, channel = Book(store).read(), read_channel(store)
    if state is None:
        raise UsageError("there never was a rollout on an endpoint", where=store.uri, fix="Start one: dual rollout start --target vertex")
    if not state.is_over():
        if state.kind == "undo":
            return go_on(store, run_id=run_id, say=say)
        if channel is None or channel[0].release != state.candidate.release:
            return abort(store, run_id=run_id, reason=reason or "undo was asked for", say=say)
    if channel is None or not channel[0].previous:
        what = "there is no release before the promoted one" if channel else "nothing was published yet"
        raise UsageError(f"{what}: nothing to go back to", where=store.uri, fix="See: dual release list")
    check_signing(store, change=True)
    previous = channel[0].previous
    with _site(store, previous, state.name, state.place, state.plan, _NOBODY, say) as site:
        return _complete(store, begin(site, previous, state.plan, run_id=run_id, kind="undo"), reason)


def request(store: Store, action: str) -> bool:
    """Ask the running process for an action; True once it was taken up, False if nobody did in time.

    The request stays where it is, for whoever takes the rollout over. Raises `UsageError` if no rollout is in progress.
    """
    state = unfinished(store)
    Book(store).ask(action, state.epoch)
    deadline = time.monotonic() + max(HEARD_WITHIN, 3 * state.plan.poll_seconds)
    while time.monotonic() < deadline:
        now = Book(store).read()
        if now is None or now.action != action:
            return True
        time.sleep(_LOOK)
    return False


def unfinished(store: Store) -> EndpointRollout:
    """The rollout that is not over; `UsageError` if there is none."""
    state = Book(store).read()
    if state is None or state.is_over():
        what = f"no rollout is in progress (the last one is {state.phase})" if state else "there never was a rollout on an endpoint"
        raise UsageError(what, where=store.uri, fix="Start one with: dual rollout start RELEASE --target vertex --plan FILE")
    return state


def plan_rows(store: Store, settings: EndpointSettings, name: str) -> list[tuple[str, str]]:
    """What a rollout would do, step by step: (phase, what happens). Reads the store only."""
    place, plan = settings.place(), settings.plan
    machines = place.machines
    gpus = f" with {machines.accelerator_count} {machines.accelerator_type}" if machines.accelerator_type else ""
    where = f"endpoint '{display_name(name, place)}' on {machines.min_replicas} to {machines.max_replicas} {machines.machine_type}{gpus}"
    rows = [("prepare", f"the release is uploaded as a version and deployed to {where}, without traffic")]
    for step in plan.steps if served_release(store) else ():
        pause = f", then a pause ({step.pause:g} s)" if isinstance(step.pause, float) and step.pause else ""
        pause = ", then a pause (manual)" if step.pause == "manual" else pause
        rows.append(("canary", f"the split gives it {step.weight} %; analysis by what it answers{pause}"))
    if plan.gate:
        rows.append(("paused", "until somebody promotes"))
    rows.append(("promote", "one write of the split moves all traffic"))
    rows.append(("post_analysis", f"{plan.post_count} round(s) of analysis"))
    rows.append(("drain", f"the old model stays deployed at 0 % for {plan.scale_down_delay:g} s, and until the pair is published"))
    return rows


@contextmanager
def _open(
    store: Store, release: str, name: str, settings: EndpointSettings, plan: EndpointPlan, notifications: NotificationSettings, say: Say
) -> Iterator[Site]:
    """The site of a new rollout; `UsageError` for what Vertex would refuse after a quarter of an hour."""
    place = settings.place()
    artifact_uri(store.uri, read_release(store, release), place.container)
    container_spec(place.container, name)
    with _site(store, release, name, place, plan, notifications, say) as site:
        yield site


@contextmanager
def _again(store: Store, state: EndpointRollout, say: Say) -> Iterator[Site]:
    """The site of a rollout that the state tells everything of."""
    with _site(store, state.candidate.release, state.name, state.place, state.plan, _NOBODY, say, sequence=state.sequence) as site:
        yield site


@contextmanager
def _site(
    store: Store,
    release: str,
    name: str,
    place: EndpointPlace,
    plan: EndpointPlan,
    notifications: NotificationSettings,
    say: Say,
    *,
    sequence: int = 0,
) -> Iterator[Site]:
    service = open_service(place)
    queries = golden_queries(store, read_release(store, release))
    judge = EndpointAnalyst(service.wire, plan.analysis, queries, name)
    heard = Announcer(store.uri, notifications, say)
    published = StoreChannel(store, sequence)
    try:
        yield Site(store=store, service=service, name=name, place=place, judge=judge, published=published, say=say, heard=heard)
    finally:
        say(f"{service.address()}: wrote {service.writes} times")
        service.close()


def _current(store: Store, epoch: int) -> tuple[Book, EndpointRollout]:
    """The state now, if it is still of that epoch; else `ConflictError`."""
    book = Book(store)
    book.guard(epoch)
    state = book.read()
    if state is None:
        raise ConflictError("the rollout's state was deleted", where=book.where, fix="Start again")
    return book, state


def _complete(store: Store, machine: Machine, reason: str = "") -> EndpointRollout:
    state = machine.run()
    if state.is_over():
        return state
    if StoreChannel(store, state.sequence).release() != state.candidate.release:
        _publish(store, machine, reason)
    return _drained(store, machine)


def _drained(store: Store, machine: Machine) -> EndpointRollout:
    """The pair is published: whoever took the rollout over meanwhile (the next release, an undo) sees to the old model too."""
    try:
        return machine.run(finish=True)
    except RolloutError:
        _keep_whole(store, machine.state.candidate.release, machine.state)
        raise
    except ConflictError as error:
        _keep_whole(store, machine.state.candidate.release, machine.book.read())
        machine.say(f"the pair is published; the old model is another run's to wait for: {error}")
        return machine.state


def _keep_whole(store: Store, release: str, state: EndpointRollout | None) -> None:
    """If the rollout was aborted in the moment in which its pair was published, the mobile half goes back too; `RolloutError` then."""
    if state is None or state.candidate.release != release or state.kind != "rollout" or state.phase not in ("aborting", "aborted"):
        return
    channel = StoreChannel(store)
    if channel.release() == release and channel.sequence() > state.sequence:
        with suppress(StaleError):
            undo_publication(store, "the cloud half was aborted meanwhile", only=release)
        what = f"was aborted while its pair was being published, so both halves went back: {state.reason}"
        raise RolloutError(what, where=f"release {release}", fix="Try it again with: dual rollout start --target vertex")


def _publish(store: Store, machine: Machine, reason: str) -> None:
    state = machine.state
    try:
        if state.kind == "undo":
            _undo_publication(store, state.candidate.release, reason or "undo was asked for")
        else:
            publish_release(store, state.candidate.release, run_id=state.run_id, after=state.sequence)
    except DualError as error:
        # Its answer may have been lost on the way back. A store that can't tell now leaves the rollout where it is: the next will find out.
        if StoreChannel(store, state.sequence).release() != state.candidate.release:
            machine.abort(f"the publication failed: {error}")
            raise


def _undo_publication(store: Store, release: str, reason: str) -> None:
    found = read_channel(store)
    if found is None or found[0].previous != release:
        what = f"the channel moved on meanwhile: {release} is no longer what was before"
        raise ConflictError(what, where=store.uri, fix="Look with `dual release list`, then undo again if it is still wanted")
    undo_publication(store, reason, only=found[0].release)
