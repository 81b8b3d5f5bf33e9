"""Starting a rollout or an undo, or taking one over: who owns the objects from now on, and what comes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from components.core.errors import ConflictError, DataError, UsageError
from serving.rollout.cluster.api import Api, Json
from serving.rollout.cluster.holding import Holding, holdings_of
from serving.rollout.cluster.labels import LabelMachine, only
from serving.rollout.cluster.machine import Machine
from serving.rollout.cluster.names import RELEASE, Names, query
from serving.rollout.cluster.objects import Live, Objects, leads_to_live, live_of, stamp_of
from serving.rollout.cluster.presence import Presence
from serving.rollout.cluster.revision import Revision, is_host, makes_hosts, replicas_of, revision_of
from serving.rollout.cluster.settings import Plan
from serving.rollout.cluster.state import Book, ClusterRollout, Phase, Say
from serving.rollout.cluster.turn import Clock, Judge, Witness
from serving.rollout.state import stamp

_ATTEMPTS = 5

Kind = Literal["rollout", "undo"]
Asked = tuple[int, str]
"""The epoch under which somebody asked for an action by annotation, and the action."""


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
    """One served model on one cluster, and everything that a rollout there needs besides the release."""

    api: Api
    names: Names
    judge: Judge
    published: Published
    say: Say
    heard: Callable[[ClusterRollout], None] = lambda _: None
    """Told of every saved transition; must not raise."""
    clock: Clock = field(default_factory=Clock)
    held: Witness = lambda _: {}
    """Asked of the pods of hosts."""


def begin(
    site: Site,
    release: str,
    digest: str,
    plan: Plan,
    *,
    run_id: str,
    kind: Kind = "rollout",
    asked: Asked | None = None,
) -> Machine:
    """The machine that brings a release to all live traffic, under a new epoch; the state says so already.

    A rollout of the same revision that is not over is taken over where it stands. Another one is superseded, unless its pair is published
    already: then its old pods are waited for. A revision that has all live traffic and is published needs nothing: the machine is over,
    and nothing was written. Raises `UsageError` without the applied template, `ConflictError` if others begin at the same time, or if what
    was `asked` for is not asked for any more: somebody else has taken it up.
    """
    for _ in range(_ATTEMPTS):
        machine = _begin(site, release, digest, plan, run_id, kind, asked)
        if machine is not None:
            return machine
    where = f"ConfigMap {site.names.namespace}/{site.names.state}"
    raise ConflictError("other rollouts began again and again", where=where, fix="Look with `dual rollout status`")


def _begin(site: Site, release: str, digest: str, plan: Plan, run_id: str, kind: Kind, asked: Asked | None) -> Machine | None:
    book = Book(site.api, site.names)
    before = book.read()
    if asked and (before is None or (before.epoch, book.action()) != asked):
        raise ConflictError(f"nobody asks for {asked[1]} any more", where=book.where, fix="Look with `dual rollout status`")
    template = read_template(site.api, site.names)
    service = site.api.get("Service", site.names.service)
    candidate = _candidate(site, release, digest, template, before if kind == "undo" else None)
    if before is not None and not before.is_over():
        if _is_same(before.candidate, candidate) and before.kind == kind:
            return take_over(site, run_id, book, before, template)
        # An undo does not wait for the old pods to go: they are what it goes back to.
        if kind == "rollout" and before.phase == "drain" and site.published.release() == before.candidate.release:
            take_over(site, run_id, book, before, template).run(finish=True)
            return None
    if before is not None and before.is_over() and _is_settled(site, service, candidate):
        over = before.model_copy(update={"phase": "promoted", "candidate": candidate})
        return machine_of(site, book, over, template)
    if kind == "rollout":
        _require_fit(site, plan, template)
    state = _fresh(site, plan, before, candidate=candidate, service=service, template=template, run_id=run_id, kind=kind)
    book.save(state, clearing=True)
    return _announced(site, book, state, template)


def take_over(site: Site, run_id: str, book: Book, before: ClusterRollout, template: Json) -> Machine:
    """The machine of a rollout that is not over, under a new epoch, in the phase where it stands."""
    text = f"epoch {before.epoch + 1}: took over from run {before.run_id}"
    now = site.clock.now()
    # Nobody waited while the time ran out; or, in an abort, in vain: it is given once more. But a pair that is not published goes back.
    again = before.phase != "drain" and (before.phase == "aborting" or now >= datetime.fromisoformat(before.deadline))
    within = before.plan.progress_deadline if again else None
    state = before.by_the_clock(now).to(before.phase, text, now=now, within=within, epoch=before.epoch + 1, run_id=run_id)
    book.save(state)
    return _announced(site, book, state, template)


def read_template(api: Api, names: Names) -> Json:
    """The applied Deployment that revisions are copied from; `UsageError` if it is missing."""
    template = api.find("Deployment", names.template)
    if template is None:
        where = f"Deployment {names.namespace}/{names.template}"
        raise UsageError("the template is not there", where=where, fix="Apply the manifests first: kubectl apply -k manifests/overlays/…")
    return template


def machine_of(site: Site, book: Book, state: ClusterRollout, template: Json) -> Machine:
    """A machine in that state."""
    objects = Objects(site.api, site.names, book, state.epoch, site.say)
    published = site.published
    hosts = is_host(state.candidate.revision) or (state.stable is not None and is_host(state.stable.revision))
    return (LabelMachine if hosts else Machine)(
        objects=objects,
        book=book,
        names=site.names,
        state=state,
        template=template,
        judge=site.judge,
        say=site.say,
        published=lambda release: published.release() == release,
        presence=Presence(site.api, site.names, state, site.say),
        heard=site.heard,
        clock=site.clock,
        held=site.held,
    )


def _announced(site: Site, book: Book, state: ClusterRollout, template: Json) -> Machine:
    site.say(f"{state.phase}: {state.events[-1].text}")
    site.heard(state)
    return machine_of(site, book, state, template)


def _is_same(one: Revision, other: Revision) -> bool:
    """Whether they are the same release in the same pods; the digest may be known to one of them only."""
    return (one.release, one.revision) == (other.release, other.revision)


def _require_fit(site: Site, plan: Plan, template: Json) -> None:
    """`UsageError` unless the template's pods are what the strategy needs."""
    if (plan.strategy == "labels") == makes_hosts(template):
        return
    where = f"Deployment {site.names.namespace}/{site.names.template}"
    if plan.strategy == "labels":
        what, fix = "its pods serve one release for good", "Apply the manifests with the component labels, or choose another strategy"
    else:
        what, fix = "its pods hold what the live Service says", "Set strategy: labels, or apply the manifests without the component labels"
    raise UsageError(f"strategy {plan.strategy} is not for this template: {what}", where=where, fix=fix)


def _holding(service: Json, revision: str) -> Holding | None:
    """What the live Service says that a host holds; None if it is none, or if that was lost."""
    try:
        return holdings_of(service).get(revision)
    except DataError:
        # Somebody edited it: whoever comes next writes it anew.
        return None


def _is_settled(site: Site, service: Json, candidate: Revision) -> bool:
    """Whether the candidate has all live traffic, and pods for it, and its pair is published."""
    if live_of(service) != Live(candidate.revision, shared=False) or site.published.release() != candidate.release:
        return False
    held = _holding(service, candidate.revision)
    if is_host(candidate.revision) and (held is None or held.releases.keys() != only(candidate).releases.keys()):
        return False
    found = site.api.find("Deployment", site.names.deployment(candidate.revision))
    route = site.api.find_allowed("HTTPRoute", site.names.route)
    return bool(found and found["spec"].get("replicas")) and (route is None or leads_to_live(route, site.names))


def _fresh(
    site: Site,
    plan: Plan,
    before: ClusterRollout | None,
    *,
    candidate: Revision,
    service: Json,
    template: Json,
    run_id: str,
    kind: Kind,
) -> ClusterRollout:
    now = site.clock.now()
    alive = before is not None and not before.is_over()
    stable = _stable(site, service, before)
    replicas = _replicas(site, template, stable)
    # The objects may remember more than a state that somebody deleted.
    epoch = 1 + max(before.epoch if before else 0, stamp_of(service))
    history = before.history if before else []
    text = f"epoch {epoch}: {kind} of {candidate.release} beside {stable.release if stable else 'nothing'}"
    if before is not None and alive:
        history = before.finished("superseded", f"superseded by {candidate.release}", now)
        text = f"{text}; supersedes the {before.kind} of {before.candidate.release} (run {before.run_id}, {before.phase})"
    state = ClusterRollout(
        epoch=epoch,
        phase="prepare",
        kind=kind,
        candidate=candidate,
        stable=stable,
        run_id=run_id,
        sequence=site.published.sequence(),
        plan=plan,
        routed=_has_route(site, before),
        replicas=replicas,
        still_up=kind == "undo" and _is_up(site, candidate, replicas),
        started=stamp(now),
        deadline=stamp(now),
        history=history,
    )
    # What has the live traffic already must not be emptied for a canary of itself.
    opening: Phase = "promote" if stable is not None and _is_same(stable, candidate) else "prepare"
    return state.to(opening, text, now=now, within=plan.progress_deadline)


def _candidate(site: Site, release: str, digest: str, template: Json, before: ClusterRollout | None) -> Revision:
    """The revision of a release; at an undo the one that was promoted, if its Deployment is still there, whatever the template says now."""
    promoted = [each.revision for each in before.history if each.outcome == "promoted"] if before else []
    seen = [*promoted, *([before.stable] if before and before.stable else [])]
    for revision in reversed(seen):
        if revision.release == release and site.api.find("Deployment", site.names.deployment(revision.revision)) is not None:
            return revision
    return revision_of(release, digest, template)


def _stable(site: Site, service: Json, before: ClusterRollout | None) -> Revision | None:
    """What live traffic goes back to: what it belongs to now, or, while an unpublished candidate has it, what it belonged to before.

    Its Deployment may be gone: then it is made again from the template.
    """
    if before is not None and not before.is_over() and site.published.release() != before.candidate.release:
        # At a first deployment that was never published there is nothing to go back to.
        return before.stable
    live = live_of(service).stable
    if (held := _holding(service, live)) is not None:
        return _held_stable(site, live, held, before)
    if before is None or not live:
        # The state was deleted, or the Service was made anew: the pods of the promoted release are still what should serve.
        live = _promoted(site, before) or live
    return _known(site, live, before) if live else None


def _held_stable(site: Site, host: str, held: Holding, before: ClusterRollout | None) -> Revision:
    """What is stable in a host that has the live traffic."""
    published = site.published.release()
    # The state was deleted: of what the pods hold, the published one is what should serve.
    release = published if before is None and published in held.releases else held.stable
    known = [each for each in _seen(before) if (each.revision, each.release) == (host, release)]
    return Revision(release=release, revision=host, digest=held.releases[release] or _longest(known))


def _promoted(site: Site, before: ClusterRollout | None) -> str:
    """The newest revision of the published release that this cluster has; empty if it has none."""
    release = site.published.release()
    last = before.candidate.revision if before is not None and before.candidate.release == release else ""
    if is_host(last) and site.api.find("Deployment", site.names.deployment(last)) is not None:
        return last
    deployments = site.api.list("Deployment", query(site.names.labels))
    found = [each for each in deployments if (each["metadata"].get("annotations") or {}).get(RELEASE) == release]
    newest = max(found, key=lambda each: each["metadata"]["creationTimestamp"], default=None)
    return site.names.revision(newest["metadata"]["name"]) if newest else ""


def _known(site: Site, revision: str, before: ClusterRollout | None) -> Revision:
    """The revision of that name, with the digest by which its pods know the release, if it was rolled out not too long ago."""
    found = site.api.find("Deployment", site.names.deployment(revision))
    release = ((found["metadata"].get("annotations") or {}) if found else {}).get(RELEASE, revision.rpartition("-")[0])
    if is_host(revision):
        release = site.published.release()
    known = [each for each in _seen(before) if each.revision == revision and each.release == release]
    return Revision(release=release, revision=revision, digest=_longest(known))


def _seen(before: ClusterRollout | None) -> list[Revision]:
    """The revisions that the state remembers."""
    if before is None:
        return []
    return [before.candidate, *([before.stable] if before.stable else []), *(each.revision for each in before.history)]


def _longest(known: list[Revision]) -> str:
    return max((each.digest for each in known), key=len, default="")


def _is_up(site: Site, revision: Revision, replicas: int) -> bool:
    """Whether so many pods of a revision are wanted and ready."""
    found = site.api.find("Deployment", site.names.deployment(revision.revision)) or {"spec": {}}
    return min(found["spec"].get("replicas", 0), (found.get("status") or {}).get("readyReplicas", 0)) >= replicas


def _has_route(site: Site, before: ClusterRollout | None) -> bool:
    """Whether a route makes the weights. Where one did, it must not be overlooked for want of rights: it may hold a weight."""
    find = site.api.find if before is not None and before.routed else site.api.find_allowed
    return find("HTTPRoute", site.names.route) is not None


def _replicas(site: Site, template: Json, stable: Revision | None) -> int:
    """As many pods as serve now where an autoscaler decides, else as many as the template asks for."""
    wanted = replicas_of(template, site.names)
    if stable is None or site.api.find("HorizontalPodAutoscaler", site.names.deployment(stable.revision)) is None:
        return wanted
    serving = site.api.find("Deployment", site.names.deployment(stable.revision))
    return (serving["spec"].get("replicas") if serving else 0) or wanted
