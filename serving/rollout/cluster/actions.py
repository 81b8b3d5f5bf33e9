"""What people and pipeline steps ask of a rollout on a cluster. The pair moves as a whole: cloud first, then the channel, or neither."""

import time
from contextlib import suppress

from components.core.channel import read_channel
from components.core.errors import ConflictError, DualError, RolloutError, StaleError, UsageError
from components.core.stores import Store
from components.publish_mobile.publication import check_signing, publish_release, undo_publication
from serving.rollout.cluster import whereabouts
from serving.rollout.cluster.announce import Announcer
from serving.rollout.cluster.api import Api, ChangedError, test_operation
from serving.rollout.cluster.begin import Asked, begin, read_template, take_over
from serving.rollout.cluster.label_plan import label_rows
from serving.rollout.cluster.machine import LONGEST_ACTION, Machine, UndoAsked
from serving.rollout.cluster.names import ACTION, Names
from serving.rollout.cluster.objects import live_of
from serving.rollout.cluster.presence import Vigil, is_held
from serving.rollout.cluster.revision import replicas_of, revision_of
from serving.rollout.cluster.settings import ClusterSettings, Plan, Step
from serving.rollout.cluster.site import StoreChannel, connect_to, open_site, plan_for, release_digest
from serving.rollout.cluster.state import Book, ClusterRollout, Say
from serving.rollout.cluster.weights import pods_for, routed_pods_for, share
from serving.rollout.state import utc_now

HEARD_WITHIN = 10.0
"""Seconds within which a running process takes an action up, unless it is in the middle of something that takes longer."""
_ATTEMPTS = 10
_LOOK = 0.5
_BUSY = 2
"""A process that lives is given so many times the plan's `alive_within` before a person's command goes over its head."""


def roll_out(store: Store, release: str, name: str, settings: ClusterSettings, *, run_id: str, say: Say) -> ClusterRollout:
    """Bring all live traffic to a release, up to where its pair can be published; the state then (drain, or promoted already).

    Raises as `Machine.run`.
    """
    with open_site(store, release, name, settings, say) as (site, plan):
        machine = begin(site, release, release_digest(store, release), plan, run_id=run_id)
        if not machine.run().is_over():
            # Nobody runs it until its pair is published, and that is as it should be.
            machine.presence.release()
        return machine.state


def ship(store: Store, release: str, name: str, settings: ClusterSettings, *, run_id: str, say: Say) -> ClusterRollout:
    """Roll a release out, publish its pair, and wait until the old pods are gone. If the publication fails, the cloud half goes back."""
    check_signing(store, change=False)
    with open_site(store, release, name, settings, say) as (site, plan):
        machine = begin(site, release, release_digest(store, release), plan, run_id=run_id)
        return _complete(store, machine, settings)


def go_on(
    store: Store,
    name: str,
    settings: ClusterSettings,
    *,
    run_id: str,
    say: Say,
    api: Api | None = None,
    only_epoch: int = 0,
    publish: bool = True,
) -> ClusterRollout:
    """Take over the rollout or undo that is not over, and bring it to its end; `UsageError` if there is none.

    Without `publish` the publication is somebody else's: it is waited for, and what is not published in time goes back. Raises
    `ConflictError` with `only_epoch` if another process has begun or taken over since that epoch.
    """
    api = api or connect_to(settings)
    names = Names(namespace=api.namespace, name=name)
    state = _unfinished(api, names)
    with open_site(store, state.candidate.release, name, settings, say, api=api, sequence=state.sequence) as (site, _):
        book = Book(api, names)
        state = _as_it_stands(book, only_epoch or state.epoch)
        machine = take_over(site, run_id, book, state, read_template(api, names))
        return _complete(store, machine, settings) if publish else _drained(store, machine, settings)


def finish(store: Store, release: str, name: str, settings: ClusterSettings, *, run_id: str, say: Say) -> ClusterRollout | None:
    """After the publication: wait until the old pods are gone. Nothing to do if they are, or if another run sees to them; the state now."""
    api = connect_to(settings)
    names = Names(namespace=api.namespace, name=name)
    book = Book(api, names)
    state = book.read()
    _keep_whole(store, release, state)
    if state is None or state.is_over() or (state.candidate.release, state.run_id) != (release, run_id):
        return state
    with open_site(store, release, name, settings, say, api=api) as (site, _):
        return _drained(store, take_over(site, run_id, book, state, read_template(api, names)), settings)


def abort(
    store: Store,
    name: str,
    settings: ClusterSettings,
    *,
    run_id: str,
    reason: str,
    say: Say,
    api: Api | None = None,
    only_run: str = "",
    only_epoch: int = 0,
) -> ClusterRollout | None:
    """Take over the rollout that is not over, and go back; None if there is none (or, with `only_run`, if it is another run's).

    Raises `UsageError` if its pair is published already: then it is an undo that is wanted; `ConflictError` as `go_on`.
    """
    api = api or connect_to(settings)
    names = Names(namespace=api.namespace, name=name)
    book = Book(api, names)
    state = book.read() if not only_epoch else _as_it_stands(book, only_epoch)
    if state is None or state.is_over() or (only_run and state.run_id != only_run):
        return None
    if StoreChannel(store, state.sequence).release() == state.candidate.release:
        what = f"the pair of {state.candidate.release} is published already"
        raise UsageError(what, where=f"rollout in namespace {names.namespace}", fix="Take both halves back with: dual rollout undo")
    with open_site(store, state.candidate.release, name, settings, say, api=api, sequence=state.sequence) as (site, _):
        aborted = take_over(site, run_id, book, state, read_template(api, names)).abort(reason)
    _keep_whole(store, aborted.candidate.release, aborted)
    return aborted


def undo(
    store: Store,
    name: str,
    settings: ClusterSettings,
    *,
    run_id: str,
    reason: str,
    say: Say,
    api: Api | None = None,
    asked: Asked | None = None,
) -> ClusterRollout | None:
    """Go back to the release before, both halves: live traffic first, then the channel. Instant while the old pods are up.

    A rollout that is not published yet is aborted instead; an undo that is under way is completed, so that it may be repeated. Raises
    `UsageError` if there is nothing before, `ConflictError` if it was `asked` for by an annotation that somebody else has taken up.
    """
    api = api or connect_to(settings)
    state = Book(api, Names(namespace=api.namespace, name=name)).read()
    channel = read_channel(store)
    if state is not None and not state.is_over() and asked is None:
        if state.kind == "undo":
            return go_on(store, name, settings, run_id=run_id, say=say)
        if channel is None or channel[0].release != state.candidate.release:
            return abort(store, name, settings, run_id=run_id, reason=reason or "undo was asked for", say=say)
    if channel is None or not channel[0].previous:
        what = "there is no release before the promoted one" if channel else "nothing was published yet"
        raise UsageError(f"{what}: nothing to go back to", where=store.uri, fix="See: dual release list")
    check_signing(store, change=True)
    previous = channel[0].previous
    with open_site(store, previous, name, settings, say, api=api) as (site, plan):
        machine = begin(site, previous, release_digest(store, previous), plan, run_id=run_id, kind="undo", asked=asked)
        return _complete(store, machine, settings, reason)


def refuse(
    store: Store, name: str, settings: ClusterSettings, *, asked: Asked, why: str, say: Say, api: Api | None = None
) -> ClusterRollout:
    """Take away an action that nobody can carry out, and say why: in the state, as an Event, as a notification; the state now.

    Raises `ConflictError` if it is not asked for any more.
    """
    api = api or connect_to(settings)
    names = Names(namespace=api.namespace, name=name)
    book = Book(api, names)
    (epoch, action), state = asked, _as_it_stands(book, asked[0])
    named = action[:LONGEST_ACTION]
    if (state.epoch, book.action()) != (epoch, action):
        raise ConflictError(f"nobody asks for {named} any more", where=book.where, fix="Look with `dual rollout status`")
    refused = state.to(state.phase, f"{named} was asked for, and {why}: nothing was done", now=utc_now())
    book.save(refused, taking=action)
    say(f"{refused.phase}: {refused.events[-1].text}")
    Announcer(api, names, store.uri, settings.notifications, say)(refused)
    return refused


def request(api: Api, names: Names, action: str, *, within: float = HEARD_WITHIN) -> bool:
    """Ask the running process for an action; True once it was taken up, False if nobody did `within` seconds.

    A process that gives signs of life is waited for longer: it may be in the middle of a measurement. The request stays where it is, for
    whoever takes the rollout over. Raises `UsageError` if no rollout is in progress.
    """
    state = _unfinished(api, names)
    _annotate(api, names, action)
    began, vigil = time.monotonic(), Vigil()
    while time.monotonic() < began + max(within, 3 * state.plan.poll_seconds) or _is_busy(api, names, vigil, began):
        if ACTION not in (api.get("ConfigMap", names.state)["metadata"].get("annotations") or {}):
            return True
        time.sleep(_LOOK)
    return False


def _annotate(api: Api, names: Names, action: str) -> None:
    """Write what is asked for beside the annotations that there are, and over none that comes at the same moment."""
    for _ in range(_ATTEMPTS):
        metadata = api.get("ConfigMap", names.state)["metadata"]
        annotations = {**(metadata.get("annotations") or {}), ACTION: action}
        same = test_operation("/metadata/resourceVersion", metadata["resourceVersion"])
        with suppress(ChangedError):
            api.patch("ConfigMap", names.state, [same, {"op": "add", "path": "/metadata/annotations", "value": annotations}])
            return
    where = f"ConfigMap {names.namespace}/{names.state}"
    raise ConflictError("it changes all the time", where=where, fix="Ask again")


def _is_busy(api: Api, names: Names, vigil: Vigil, began: float) -> bool:
    """Whether there is a process that may yet hear; not while it goes back, when it takes nothing up any more."""
    state, lease = Book(api, names).read(), api.find("Lease", names.lease)
    if state is None or state.phase == "aborting" or not is_held(lease, state):
        return False
    silent = vigil.silence(state, lease)
    return silent < state.plan.alive_within and time.monotonic() < began + _BUSY * state.plan.alive_within


def _as_it_stands(book: Book, epoch: int) -> ClusterRollout:
    """The state now, if it is still of that epoch; else `ConflictError`."""
    state = book.read()
    if state is None or state.epoch != epoch:
        what = f"somebody else runs it by now: epoch {state.epoch} (run {state.run_id})" if state else "its state was deleted"
        raise ConflictError(what, where=book.where, fix="Look with `dual rollout status`")
    return state


def _unfinished(api: Api, names: Names) -> ClusterRollout:
    state = Book(api, names).read()
    if state is None or state.is_over():
        what = f"no rollout is in progress (the last one is {state.phase})" if state else "there never was a rollout"
        raise UsageError(what, where=f"namespace {names.namespace}", fix="Start one with: dual rollout start RELEASE")
    return state


def _complete(store: Store, machine: Machine, settings: ClusterSettings, reason: str = "") -> ClusterRollout:
    if machine.state.is_over():
        return machine.run()
    with machine.presence.shown():
        state = machine.run()
        if not state.is_over():
            # Nothing is written to a folder from which the store was unmounted.
            published = StoreChannel(store, state.sequence).release() == state.candidate.release
            whereabouts.note(store, state.candidate.release, machine.names.name, machine.names.namespace, settings)
            if not published:
                _publish(store, machine, reason)
            state = _drained(store, machine, settings)
    return state


def _drained(store: Store, machine: Machine, settings: ClusterSettings) -> ClusterRollout:
    """The pair is published: whoever took the rollout over meanwhile (the next release, an undo) sees to the old pods too."""
    machine.may_undo = True
    try:
        return machine.run(finish=True)
    except UndoAsked:
        return _undo_at_once(store, machine, settings)
    except RolloutError:
        _keep_whole(store, machine.state.candidate.release, machine.state)
        raise
    except ConflictError as error:
        _keep_whole(store, machine.state.candidate.release, machine.book.read())
        machine.say(f"the pair is published; the old pods are another run's to wait for: {error}")
        return machine.state


def _undo_at_once(store: Store, machine: Machine, settings: ClusterSettings) -> ClusterRollout:
    """While the old pods are still up, which is when an undo is instant."""
    name, state = machine.names.name, machine.state
    machine.say("undo was asked for by an operator: both halves go back")
    how = {"run_id": state.run_id, "reason": "undo was asked for by an operator", "say": machine.say}
    undone = undo(store, name, settings, **how, api=machine.objects.api, asked=(state.epoch, "undo"))
    return undone or state


def _keep_whole(store: Store, release: str, state: ClusterRollout | None) -> None:
    """If the rollout was aborted in the moment in which its pair was published, the mobile half goes back too; `RolloutError` then."""
    if state is None or state.candidate.release != release or state.kind != "rollout" or state.phase not in ("aborting", "aborted"):
        return
    channel = StoreChannel(store)
    # A channel that named the release before this rollout began has nothing to do with it.
    if channel.release() == release and channel.sequence() > state.sequence:
        with suppress(StaleError):
            undo_publication(store, "the cloud half was aborted meanwhile", only=release)
        what = f"was aborted while its pair was being published, so both halves went back: {state.reason}"
        raise RolloutError(what, where=f"release {release}", fix=f"Try it again with: dual rollout start {release}")


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


def reader(name: str, settings: ClusterSettings) -> tuple[Api, Names, Book]:
    """What only looks at a rollout needs."""
    api = connect_to(settings)
    names = Names(namespace=api.namespace, name=name)
    return api, names, Book(api, names)


def preview_plan(name: str, settings: ClusterSettings) -> list[tuple[str, str]]:
    """What a rollout would do on this cluster, step by step: (phase, what happens). Reads only."""
    api, names, _ = reader(name, settings)
    template = read_template(api, names)
    live = live_of(api.get("Service", names.service))
    found = api.find("Deployment", names.deployment(live.stable)) if live.stable else None
    plan = plan_for(api, names, settings)
    routed = plan.strategy == "canary" and api.find_allowed("HTTPRoute", names.route) is not None
    serving = found["spec"].get("replicas", 0) if found else 0
    if plan.strategy == "labels":
        within = live.stable == revision_of("", "", template).revision
        return label_rows(plan, within=within, serving=serving, replicas=replicas_of(template, names))
    return plan_rows(plan, replicas_of(template, names), serving, routed=routed)


def plan_rows(plan: Plan, replicas: int, serving: int, *, routed: bool) -> list[tuple[str, str]]:
    """The same from plain numbers: pods that the template asks for, and pods that serve now (0: a first deployment)."""
    rows = [("prepare", "the candidate's first pods become ready and see no live traffic")]
    if plan.preview:
        rows.append(("validate_preview", "every one of them is asked the golden images"))
    rows += [_step_row(step, serving, routed=routed) for step in plan.steps if plan.strategy == "canary" and serving]
    if plan.gate:
        rows.append(("paused", "until somebody promotes"))
    rows.append(("promote", f"{replicas} candidate pod(s) ready, then all live traffic moves by one write"))
    rows.append(("post_analysis", f"{plan.post_count} round(s) of analysis"))
    rows.append(("drain", f"the old pods stay {plan.scale_down_delay:g} s, and until the pair is published"))
    return rows


def _step_row(step: Step, serving: int, *, routed: bool) -> tuple[str, str]:
    pods = routed_pods_for(step.weight, serving) if routed else pods_for(step.weight, serving)
    achieved = float(step.weight) if routed else share(pods, serving)
    pause = f"{step.pause:g} s" if isinstance(step.pause, float) else step.pause
    then = f", then a pause ({pause})" if step.pause else ""
    return "canary", f"{step.weight} % asked: {pods} candidate pod(s) beside {serving}, {achieved:.1f} % achieved; analysis{then}"
