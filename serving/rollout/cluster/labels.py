"""Strategy labels: the candidate, what is stable, or both are held by hosts, whose pods hold what the live Service says.

Within one host no pod is made or ended. The candidate is loaded beside the stable version, asked by its number, and then the label
`stable` moves: first what is to be is written, then the servers of all pods are waited for to say that it is so. Where pods have to be made
anew (the template changed, or pods hold one release for good yet) the phases are blue-green's, or with `make_room` recreate's.
"""

from collections.abc import Iterator
from dataclasses import replace

from components.core.errors import RolloutError
from components.core.release import release_version
from serving.rollout.analysis.held import AVAILABLE, Held
from serving.rollout.analysis.pods import PodTarget
from serving.rollout.analysis.settings import AnalysisSettings
from serving.rollout.cluster.api import Json
from serving.rollout.cluster.holding import STABLE_LABEL, Holding, refusal_of
from serving.rollout.cluster.machine import Machine
from serving.rollout.cluster.names import FETCHER
from serving.rollout.cluster.revision import Revision, is_host
from serving.rollout.cluster.state import SWITCHED
from serving.rollout.cluster.trouble import crushed, explain, way_out

_LOG_LINES = 20
_LOG_LOOKS = 5
"""A holder's log is read at every so-manieth look only."""


class LabelMachine(Machine):
    """A rollout to, within or from a host."""

    _looks = 0

    @property
    def within(self) -> bool:
        """Whether the same pods hold the candidate and what it comes after."""
        stable = self.state.stable
        return stable is not None and stable.revision == self.candidate and stable.release != self.state.candidate.release

    # --- what the plan makes of it ------------------------------------------------------------------------------------------------

    def recreates(self) -> bool:
        """Whether the pods of another revision end before the host's start."""
        return self.plan.make_room and self.stable not in ("", self.candidate)

    def rehearses(self) -> bool:
        """Within a host the candidate is measured before it has any live traffic, by requests of our own."""
        return super().rehearses() or (self.within and self.state.kind == "rollout")

    def leaves_something(self) -> bool:
        """The version of before stays loaded for a while, as pods would."""
        return self.within or super().leaves_something()

    def rehearsal(self) -> AnalysisSettings:
        """What can be known of one of two versions in the same pods: nothing that is counted for the pods as a whole."""
        analysis = super().rehearsal()
        if not self.within:
            return analysis
        told_apart = [metric for metric in analysis.prometheus if not metric.names_pods()]
        # There is no step whose time could be measured instead.
        return analysis.model_copy(update={"prometheus": told_apart, "count": analysis.count or 1})

    def asked_pods(self) -> tuple[list[PodTarget], list[PodTarget]]:
        """Within a host both are the same pods, asked for a version each; after the switch the label `stable` is asked, as clients do."""
        if not self.within or self.state.phase in SWITCHED:
            candidate, stable = super().asked_pods()
            return [_as_clients_do(pod) for pod in candidate], [_as_clients_do(pod) for pod in stable]
        pods, before = self.ready_pods()[self.candidate], self.state.stable
        return [_of(pod, self.state.candidate) for pod in pods], [_of(pod, before) for pod in pods if before is not None]

    # --- what hosts are to hold ---------------------------------------------------------------------------------------------------

    def _due(self, stable: Json | None) -> int:
        """A host's pods serve already: their number is whoever's affair it is."""
        return 0 if self.within else super()._due(stable)

    def _beside(self) -> Holding:
        """The candidate beside the stable version, which keeps the live traffic."""
        return self._both(self.state.stable or self.state.candidate, self.state.candidate.release)

    def _switched(self) -> Holding:
        """The candidate with all live traffic, and the version of before, loaded."""
        return self._both(self.state.candidate)

    def _both(self, stable: Revision, canary: str | None = None) -> Holding:
        every = [self.state.candidate, *([self.state.stable] if self.state.stable else [])]
        return Holding(stable=stable.release, canary=canary, releases={each.release: each.digest for each in every})

    def _due_holdings(self) -> dict[str, Holding]:
        """Host → what its pods are to hold in this phase; a host that changes in it is left out."""
        phase, stable = self.state.phase, self.state.stable
        if self.within:
            return {} if phase == "promote" else {self.candidate: self._switched() if phase in SWITCHED else self._beside()}
        due = {self.stable: only(stable)} if stable is not None and is_host(self.stable) else {}
        if is_host(self.candidate) and phase != "prepare":
            due[self.candidate] = only(self.state.candidate)
        return due

    def _record(self, host: str, holding: Holding) -> None:
        self.objects.record_holding(host, holding, beside=(self.stable, self.candidate))

    def _hold_record(self, host: str, holding: Holding) -> None:
        """What was recorded stays; a label that somebody moves goes back."""
        if self.objects.record_holding(host, holding, beside=(self.stable, self.candidate)):
            self.say(f"what {self._name(host)} is to hold was changed by somebody: set back to {_text(holding)}")

    def _hold_traffic(self) -> None:
        super()._hold_traffic()
        for host, holding in self._due_holdings().items():
            self._hold_record(host, holding)

    def _hold_stable(self) -> Json | None:
        if not self.within:
            return super()._hold_stable()
        found = self.objects.deployment(self.stable)
        if found is None or not found["spec"].get("replicas"):
            self.refill_stable()
        return self.objects.deployment(self.stable)

    def _hold_candidate(self, stable: Json | None) -> None:
        super()._hold_candidate(stable)
        # The stable version is in the same pods: what they can't bear has to go at once.
        if self.within and self.state.phase != "prepare":
            self._require_borne()
            if trouble := self._trouble(stable):
                raise trouble

    def _has_ready_stable(self) -> bool:
        """Within a host the version of before is loaded in whatever pods there are."""
        return self.within or super()._has_ready_stable()

    # --- phases -------------------------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Every pod of the host holds the candidate beside the stable version, and the label `stable` has not moved."""
        if not self.within:
            return super()._prepare()
        kept = self._is_kept()
        self.withdraw_weight()
        self.back_to_stable(revive=False)
        self.empty_others()
        self.hold()
        self.select_preview(self.candidate)
        if kept and not self._lacking(self.candidate, self._beside()):
            return self._prepared("promote", "the version of before is still loaded")
        self._await(self.candidate, self._beside())
        return self._prepared("validate_preview", f"every pod of {self.candidate} holds {_text(self._beside())}")

    def _is_kept(self) -> bool:
        """Whether an undo comes while the version of before is loaded yet, as it was when it served."""
        found = self.objects.holding(self.candidate) if self.state.kind == "undo" else None
        return found is not None and self.state.candidate.release in found.releases and found.canary != self.state.candidate.release

    def _ensure_candidate(self) -> None:
        super()._ensure_candidate()
        if is_host(self.candidate):
            self._record(self.candidate, only(self.state.candidate))

    def await_candidate(self) -> None:
        """Pods may have gone since, and their successors load anew."""
        if self.within:
            return self._await(self.candidate, self._beside())
        super().await_candidate()
        return self._await_hosted(self.candidate)

    def scale_and_wait(self, revision: str, replicas: int) -> None:
        """So many pods of a revision, all of them ready, and holding what they are to hold."""
        super().scale_and_wait(revision, replicas)
        self._await_hosted(revision)

    def _checked(self, text: str) -> None:
        if self.within and self.state.kind == "rollout":
            return self.save("analyze", text, within=self.plan.progress_deadline, **self._anew())
        return super()._checked(text)

    def _promote(self) -> None:
        """Nothing moves before every pod holds the candidate; nothing is saved before every server says that the label moved."""
        if not self.within:
            return super()._promote()
        self.hold()
        if self.objects.holding(self.candidate) != self._switched():
            self._await(self.candidate, self._beside())
        self._record(self.candidate, self._switched())
        self._await_labels(self.candidate, self._switched())
        self.withdraw_weight()
        replicas = self._settle_number()
        text = f"the label stable selects {self.state.candidate.release} in every pod of {self.candidate} ({replicas} pod(s))"
        return self.save("post_analysis", text, asked=100.0, achieved=100.0, **self._anew())

    def _settle_number(self) -> int:
        """As many pods as the template asks for, unless an autoscaler decides; their number now."""
        self.objects.ensure_autoscaler(self.candidate)
        if self.objects.autoscaler(self.candidate) is None:
            self.scale(self.candidate, self.state.replicas)
        return self.objects.pods(self.candidate).wanted

    @property
    def old(self) -> str:
        """What an undo is instant for, in words."""
        return "the version of before stays loaded" if self.within else "the old pods stay"

    def leave_old(self) -> str:
        """What was before has no pods any more, or is unloaded."""
        text = super().leave_old()
        if is_host(self.candidate):
            self.objects.record_holding(self.candidate, only(self.state.candidate))
        return f"{self.state.candidate.release} is stable in {self.candidate}; the version of before is unloaded" if self.within else text

    def back_to_stable(self, *, revive: bool) -> None:
        """As ever, and where the stable revision is a host, every ready pod of it says that the label `stable` selects it."""
        holding = self._due_holdings().get(self.stable)
        if self.within:
            holding = self._beside() if self.state.phase == "prepare" else only(self.state.stable or self.state.candidate)
        if holding is not None:
            # Before their readiness is waited for: it may be this that takes it from them.
            self._record(self.stable, holding)
        super().back_to_stable(revive=revive)
        if holding is not None:
            self._await_labels(self.stable, holding)

    def origin(self) -> str:
        """What live traffic goes back to, in words; empty at the first deployment."""
        stable = self.state.stable
        return f"{stable.release} in {self.stable}" if stable is not None and is_host(self.stable) else super().origin()

    # --- waiting for what servers say ---------------------------------------------------------------------------------------------

    def _await_hosted(self, revision: str) -> None:
        holding = self._due_holdings().get(revision) or (only(self.state.candidate) if revision == self.candidate else None)
        if is_host(revision) and holding is not None:
            self._await(revision, holding)

    def _await(self, host: str, holding: Holding) -> None:
        """Wait until all pods of the host are there and hold all of it; `RolloutError` if one can't, or not in time."""

        def held() -> bool:
            self._hold_record(host, holding)
            return not self._lacking(host, holding)

        self.wait(held, lambda: self._late(self._lacking(host, holding)))

    def _await_labels(self, host: str, holding: Holding) -> None:
        """Wait until the label `stable` is where it should be in every pod that gets traffic; `RolloutError` if not in time."""

        def moved() -> bool:
            self._hold_record(host, holding)
            return not self._lagging(host, holding)

        self.wait(moved, lambda: self._late(self._lagging(host, holding)))

    def _late(self, lacking: list[str]) -> RolloutError:
        fix = f"Look: kubectl -n {self.names.namespace} logs POD -c {FETCHER}, and -c server"
        return RolloutError(f"not within the deadline ({self.state.deadline}): {'; '.join(lacking[:3])}", where=self.where(), fix=fix)

    def _lagging(self, host: str, holding: Holding) -> list[str]:
        """In which ready pods the label `stable` is somewhere else, in words."""
        held = self.held(self.ready_pods().get(host, []))
        return [text for pod, each in held.items() for text in _mislabelled(pod, each, holding)]

    def _lacking(self, host: str, holding: Holding) -> list[str]:
        """What is still missing, in words. `RolloutError` if it will not come."""
        self._looks += 1
        pods, counted = self.ready_pods().get(host, []), self.objects.pods(host)
        if not counted.settled or not counted.wanted or len(pods) < counted.wanted:
            return [self._absent(host, len(pods), counted.wanted)]
        held = self.held(pods)
        if refused := [text for pod, each in held.items() for text in self._refused(pod, each, holding)]:
            raise RolloutError("; ".join(refused[:3]), where=self.where(), fix="See what validate_infra said of that release")
        missing = [text for pod, each in held.items() for text in _missing(pod, each, holding)]
        return [*missing, *(text for pod, each in held.items() for text in _mislabelled(pod, each, holding))]

    def _absent(self, host: str, ready: int, wanted: int) -> str:
        self._require_borne()
        return f"{ready} of {wanted} pods of {self._name(host)} are ready: {explain(self._troubles(host))}"

    def _await_pods(self, *, compare: bool) -> None:
        """Within a host there is nothing to wait for without looking after it: what its pods can't bear takes them down."""
        if not self.within:
            return super()._await_pods(compare=compare)
        while not self.objects.pods(self.candidate).ready:
            self.tick()
        return None

    def _require_borne(self) -> None:
        """`RolloutError` if a server of the host ran out of memory since the rollout began."""
        if found := crushed(self.objects.api, self.names, self.candidate, self.state.started):
            what = f"the pods of {self._name(self.candidate)} don't bear both versions: {explain(found)}"
            raise RolloutError(what, where=self.where(), fix=way_out(found))

    def _refused(self, pod: PodTarget, held: Held, holding: Holding) -> Iterator[str]:
        """Why a pod will not get the candidate: its server can't load it, or what fetches it refuses its files."""
        release = self.state.candidate.release
        version = release_version(release)
        if release not in holding.releases:
            return
        if version in held.failures:
            yield f"Pod {pod.name} can't load release {release}: {held.failures[version]}"
        elif version not in held.states and not held.problem and not self._looks % _LOG_LOOKS:
            # What a holder claims to have done counts for nothing; that it gives up may be believed.
            said = self.objects.api.logs(pod.name, FETCHER, lines=_LOG_LINES).splitlines()
            yield from (f"Pod {pod.name}: {line}" for line in said[-1:] if line.startswith(refusal_of(release)))


def only(revision: Revision) -> Holding:
    """One release, with all live traffic."""
    return Holding(stable=revision.release, releases={revision.release: revision.digest})


def _text(holding: Holding) -> str:
    return f"{holding.stable} as stable" + (f" and {holding.canary} as canary" if holding.canary else "")


def _as_clients_do(pod: PodTarget) -> PodTarget:
    return replace(pod, path=f"labels/{STABLE_LABEL}") if is_host(pod.revision) else pod


def _of(pod: PodTarget, revision: Revision) -> PodTarget:
    """The pod, asked for one of its versions; named by release, because the host's name says nothing of that."""
    name = f"{revision.release}-{revision.revision.rpartition('-')[2]}"
    return replace(pod, path=f"versions/{release_version(revision.release)}", shared=True, revision=name)


def _missing(pod: PodTarget, held: Held, holding: Holding) -> Iterator[str]:
    if held.problem:
        yield f"Pod {pod.name}: {held.problem}"
        return
    for version, release in holding.versions().items():
        state = held.states.get(version, "not known to it")
        if state != AVAILABLE:
            failure = held.failures.get(version, "")
            yield f"Pod {pod.name}: release {release} is {state}" + (f" ({failure})" if failure else "")


def _mislabelled(pod: PodTarget, held: Held, holding: Holding) -> Iterator[str]:
    found, wanted = held.labels.get(STABLE_LABEL), release_version(holding.stable)
    if found != wanted:
        where = f"at {found:012x}" if found is not None else held.problem or "nowhere"
        yield f"Pod {pod.name}: the label {STABLE_LABEL} is {where}, not at {holding.stable}"
