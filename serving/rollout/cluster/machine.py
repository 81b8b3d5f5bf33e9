"""The state machine: prepare → validate_preview → (canary → analyze → paused)… → promote → post_analysis → drain → promoted.

From any phase before drain a failure leads to aborting → aborted. Every phase compares and writes until the cluster is as the phase wants
it, waits until pods are ready, and only then saves the next phase. It may be run by any process, at any time, twice.
"""

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from components.core.errors import ConflictError, DualError, MissingObjectError, RolloutError
from serving.rollout.analysis.pods import PodTarget
from serving.rollout.analysis.rules import Measurement, MetricResult, Verdict, due, tally, verdict_of
from serving.rollout.analysis.settings import AnalysisSettings
from serving.rollout.cluster.api import ClusterError, UnavailableError
from serving.rollout.cluster.keep import Emptied, Keeper
from serving.rollout.cluster.objects import Live
from serving.rollout.cluster.revision import pods_digest, revision_of
from serving.rollout.cluster.state import ClusterRollout, Phase
from serving.rollout.cluster.turn import Wanted
from serving.rollout.cluster.weights import share

LONGEST_ACTION = 40
"""Characters of what somebody asked for that are repeated: an annotation may have 256 KiB."""
_MOST_ANEW = 3
"""So often may a candidate lose all its pods under traffic: a kubelet may start again, a node may go."""
_SAYS = {"failed": "failed", "error": "could not be made", "inconclusive": "was inconclusive"}


class UndoAsked(Exception):
    """Somebody asked for an undo of the pair that was just published; it is still there to be asked for."""


class Machine(Keeper):
    """What a rollout does in each phase; `begin` makes one."""

    may_undo = False
    """Whether who runs this takes a published pair back when somebody asks for it: `UndoAsked`."""

    def run(self, *, finish: bool = False) -> ClusterRollout:
        """Go on until the live traffic is the candidate's and its analysis passed (drain); with `finish` until the old pods are gone.

        Raises `RolloutError` with the reason once it has gone back, `ConflictError` if another process took over (nothing here is ours to
        undo then), `DualError` if the cluster can't be reached: then the next run goes on from where this one stopped, `UndoAsked` with
        `may_undo` only.
        """
        if not self.state.is_over():
            with self.presence.shown():
                self._go_on(finish)
        if self.state.phase == "aborted":
            raise RolloutError(self.state.reason.rstrip("."))
        return self.state

    def _go_on(self, finish: bool) -> None:
        self.objects.claim()
        while not self.state.is_over() and (finish or self.state.phase != "drain"):
            try:
                self.look()
                getattr(self, f"_{self.state.phase}")()
            except Wanted as wanted:
                self._obey(wanted.action)
            except Emptied:
                self._begin_anew()
            except ConflictError:
                raise
            except DualError as error:
                self._fail(error)

    def abort(self, reason: str) -> ClusterRollout:
        """Go back now; the state at the end. Raises as `run` does, but for the rollout that went back as it should."""
        self.objects.claim()
        if self.state.phase != "aborting":
            self._abort(reason, reason)
        with suppress(RolloutError):
            self.run()
        return self.state

    # --- phases -------------------------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Live traffic is the stable revision's alone; the candidate's first pods are ready and see none."""
        self.withdraw_weight()
        self.back_to_stable(revive=False)
        # First, because with strategy recreate the stable revision may have no room beside them.
        self.empty_others()
        self.hold()
        self._ensure_candidate()
        self.select_preview(self.candidate)
        first = self.first_pods()
        if self.state.still_up and self.objects.pods(self.candidate).ready >= first:
            return self._prepared("promote", "the pods of before are still ready")
        if self.recreates():
            return self._prepared("promote", "the candidate's Deployment is there, without pods")
        self.scale_and_wait(self.candidate, first)
        return self._prepared("validate_preview", f"{first} pod(s) of {self.candidate} are ready and see no live traffic")

    def _ensure_candidate(self) -> None:
        self.objects.ensure_deployment(self.template, self.state.candidate)
        # At an undo the template may be another one by now: then the Deployment is right as it is.
        is_current = revision_of(self.state.candidate.release, "", self.template).revision == self.candidate
        if is_current and self.objects.restore_pods(self.template, self.state.candidate):
            self.say(f"{self._name(self.candidate)} was edited by somebody: set back to what the template says")

    def _prepared(self, following: Phase, text: str) -> None:
        found = self.objects.deployment(self.candidate)
        if found is None:
            raise self.deleted(self.candidate)
        self.save(following, text, within=self.plan.progress_deadline, pods_digest=pods_digest(found))

    def _validate_preview(self) -> None:
        # Pods may have gone since they were ready.
        self.await_candidate()
        self.hold()
        checks = self.judge.preview(self.asked_pods()[0]) if self.plan.preview else []
        self.state = self.state.model_copy(update={"checks": checks})
        if failed := [check.text for check in checks if not check.passed]:
            raise RolloutError(f"the candidate failed its preview: {'; '.join(failed)}", where=self.where())
        return self._checked(f"{len(checks)} check(s) of the preview passed")

    def await_candidate(self) -> None:
        """Wait until the candidate is as ready as it was before its first check."""
        self.wait_ready(self.candidate, self.first_pods(), keep=True)

    def _checked(self, text: str) -> None:
        return self._enter_step(0, text) if self.is_stepwise() else self._gate(text)

    def _canary(self) -> None:
        """The candidate has the step's pods, ready, before any of the step's weight reaches it."""
        weight = self.plan.steps[self.state.step].weight
        pods = self.pods_for(weight)
        self.scale_and_wait(self.candidate, pods)
        self._set_weight(weight)
        achieved = self._achieved()
        step = f"step {self.state.step + 1} of {len(self.plan.steps)}"
        text = f"{step}: {weight} % asked, {achieved:.1f} % achieved with {pods} candidate pod(s)"
        self.save("analyze", text, achieved=achieved, **self._anew())

    def _analyze(self) -> None:
        pause = self.plan.steps[self.state.step].pause if self.is_stepwise() else 0.0
        verdict = self._measure(self.rehearsal(), compare=True, lasts=pause if pause != "manual" else 0.0)
        if verdict.outcome == "inconclusive":
            why = "; ".join(verdict.failures())
            return self._pause(f"inconclusive: {why}; waiting for somebody to resume, promote or abort")
        if verdict.outcome != "successful":
            raise RolloutError(f"the analysis {_SAYS[verdict.outcome]}: {'; '.join(verdict.failures())}", where=self.where())
        if pause == "manual":
            return self._pause("the step's analysis passed; waiting for somebody to resume or promote")
        if pause and self.plan.analysis.count:
            return self._pause("the step's analysis passed", seconds=pause)
        return self._advance("the step's analysis passed")

    def _paused(self) -> None:
        until = self.state.paused_until
        self.hold()
        while not until or self.clock.now() < datetime.fromisoformat(until):
            self.tick()
        self._advance("the pause is over")

    def _promote(self) -> None:
        """All pods of the candidate are ready before one write moves all traffic."""
        if self.stable == self.candidate:
            self.objects.ensure_deployment(self.template, self.state.candidate)
        self.hold()
        replicas = self.state.replicas
        if self.objects.live() != Live(self.candidate, shared=False) or not self.objects.pods(self.candidate).wanted:
            replicas = self._replicas()
            if self.recreates() and self.objects.pods(self.candidate).ready < replicas:
                self._make_room()
            self.scale_and_wait(self.candidate, replicas)
            self.objects.select_live(self.candidate)
        self.withdraw_weight()
        self.objects.ensure_autoscaler(self.candidate)
        text = f"all live traffic goes to {self.candidate} ({replicas} pod(s))"
        self.save("post_analysis", text, asked=100.0, achieved=100.0, replicas=replicas, **self._anew())

    def _post_analysis(self) -> None:
        self.hold()
        if self.plan.post_count and self.state.kind == "rollout":
            settings = self.plan.analysis.model_copy(update={"count": self.plan.post_count})
            verdict = self._measure(settings, compare=False)
            # All traffic is there already: what can't be judged is not left there.
            if verdict.outcome != "successful":
                why = f"the analysis after the switch {_SAYS[verdict.outcome]}: {'; '.join(verdict.failures())}"
                raise RolloutError(why, where=self.where())
        old = self.leaves_something()
        until = self.clock.now() + timedelta(seconds=self.plan.scale_down_delay if old else 0.0)
        kept = f"{self.old} until {until:%H:%M:%S} UTC, and" if old else "the rollout is not over"
        text = f"{kept} until the pair is published"
        self.save("drain", text, within=self.plan.publish_within, drain_until=until.isoformat(timespec="milliseconds"))

    def _drain(self) -> None:
        """The old pods go once the pair is published and the delay is over; without a publication in time everything goes back."""
        self.hold()
        while not (published := self.is_published()) or self.clock.now() < self._drain_end() or not self.has_enough():
            if not published and self.is_late():
                what = f"the pair was not published within {self.plan.publish_within:g} s of the switch"
                raise RolloutError(what, where=self.where(), fix="Run again: both halves are published, or none")
            self.tick()
        self._finish("promoted" if self.state.kind == "rollout" else "rolled_back", self.leave_old())

    @property
    def old(self) -> str:
        """What an undo is instant for, in words."""
        return "the old pods stay"

    def leave_old(self) -> str:
        """Nothing of what was before has pods any more; what to say of it."""
        self.empty_others()
        self.forget_old()
        return f"{self.candidate} is stable; the old pods are gone"

    def _aborting(self) -> None:
        """Traffic first, pods last: the stable revision has what it needs, the weight is written as 0, then the candidate goes."""
        self.back_to_stable(revive=True)
        self.withdraw_weight()
        self._leave_preview()
        if self.candidate != self.stable:
            self.empty(self.candidate)
        self._finish("aborted", f"live traffic is where it was: {self.origin() or 'nowhere (there was no release before)'}")

    def origin(self) -> str:
        """What live traffic goes back to, in words; empty at the first deployment."""
        return self.stable

    def _leave_preview(self) -> None:
        """No weight leads to the preview Service any more: what can't be changed there must not keep the candidate's pods alive."""
        try:
            self.objects.select_preview(self.stable)
        except UnavailableError:
            raise
        except (MissingObjectError, ClusterError) as error:
            self.say(f"the preview Service stays as it is: {error}")

    # --- steps and weights --------------------------------------------------------------------------------------------------------

    def _set_weight(self, weight: int) -> None:
        if self.state.routed:
            self.objects.weigh(weight)
        else:
            self.objects.select_live(self.stable, shared=True)

    def _achieved(self) -> float:
        if self.state.routed:
            return self.objects.weight()
        return share(self.objects.pods(self.candidate).ready, self.objects.pods(self.stable).ready)

    def _replicas(self) -> int:
        """As many pods take over as serve now where an autoscaler decides: it may have changed their number since the beginning."""
        if self.stable in ("", self.candidate) or self.objects.autoscaler(self.stable) is None:
            return self.state.replicas
        return self.objects.pods(self.stable).wanted or self.state.replicas

    def _make_room(self) -> None:
        """Strategy recreate: the old pods end first. The one strategy that leaves a gap, and says so."""
        if self.objects.pods(self.stable).wanted:
            self.say(f"recreate: the pods of {self.stable} end before the new ones start; requests fail until those are ready")
        self.end_pods(self.stable)

    def _enter_step(self, step: int, text: str, **changes: Any) -> None:
        weight, unmeasured = float(self.plan.steps[step].weight), {**self._anew(), "stepped_at": ""}
        self.save("canary", text, within=self.plan.progress_deadline, step=step, asked=weight, paused_until="", **unmeasured, **changes)

    def _begin_anew(self) -> None:
        """No weight without ready endpoints; what was gained in the steps before is no longer known to hold."""
        self.objects.select_live(self.stable)
        self.withdraw_weight()
        lost, times = f"no pod of {self._name(self.candidate)} is ready any more", self.state.begun_anew
        if times == _MOST_ANEW:
            fix = "It does not bear traffic: look at its pods' logs and probes"
            return self._fail(RolloutError(f"{lost}, for the {times + 1}th time since it has traffic", where=self.where(), fix=fix))
        text = f"{lost}: weight 0 until some are, then the steps begin anew"
        return self._enter_step(0, text, achieved=0.0, gated=False, begun_anew=times + 1)

    def _advance(self, text: str) -> None:
        following = self.state.step + 1
        if self.is_stepwise() and following < len(self.plan.steps) and self.state.phase != "promote":
            return self._enter_step(following, text)
        return self._gate(text)

    def _gate(self, text: str) -> None:
        """The manual gate before all traffic moves, where the plan has one and it was not passed yet."""
        if self.plan.gate and self.state.kind == "rollout" and not self.state.gated:
            return self._pause(f"{text}; waiting for somebody to promote", gated=True)
        return self.save("promote", text, within=self.plan.progress_deadline, paused_until="")

    def _pause(self, text: str, *, seconds: float = 0.0, gated: bool = False) -> None:
        until = self.clock.now() + timedelta(seconds=seconds)
        stamp = until.isoformat(timespec="milliseconds") if seconds else ""
        self.save("paused", f"{text}; pausing until {until:%H:%M:%S} UTC" if seconds else text, paused_until=stamp, gated=gated)

    def _drain_end(self) -> datetime:
        return datetime.fromisoformat(self.state.drain_until)

    def _anew(self) -> dict[str, Any]:
        return {"results": {}, "measured_at": "", "stepped_at": self.clock.now().isoformat(timespec="milliseconds")}

    # --- analysis -----------------------------------------------------------------------------------------------------------------

    def rehearsal(self) -> AnalysisSettings:
        """What is measured before all traffic moves."""
        return self.plan.analysis

    def asked_pods(self) -> tuple[list[PodTarget], list[PodTarget]]:
        """The ready pods of the candidate and of the stable revision, as the judge is to ask them."""
        pods = self.ready_pods()
        self._tell_strangers(pods)
        return pods[self.candidate], pods[self.stable]

    def _measure(self, settings: AnalysisSettings, *, compare: bool, lasts: float = 0.0) -> Verdict:
        """Measure until there is a verdict; with `count: 0` for as long as the step `lasts` (seconds)."""
        began = datetime.fromisoformat(self.state.stepped_at)
        while True:
            over = not settings.count and self.clock.now() >= began + timedelta(seconds=lasts)
            verdict = verdict_of(self.state.results, settings, compare=compare and bool(self.stable), over=over)
            self.state = self.state.model_copy(update={"checks": verdict.reasons})
            if verdict.outcome != "running":
                return verdict
            last = datetime.fromisoformat(self.state.measured_at) if self.state.measured_at else None
            while self.clock.now() < due(settings, began, last):
                self.tick()
            self.hold()
            self._await_pods(compare=compare)
            candidate, stable = self.asked_pods()
            found = self.judge.measure(candidate, stable if compare and self.stable else [])
            # What does not count here is not shown either.
            found = [each for each in found if each.metric in settings.metrics()]
            self._note(found, tally(found, settings, self.state.results))

    def _await_pods(self, *, compare: bool) -> None:
        """Without ready pods nothing can be measured: wait until evicted ones are back, a kubelet is up again, a node is replaced."""
        revisions = [self.candidate, *([self.stable] if compare and self.stable else [])]
        missing = [revision for revision in revisions if not self.objects.pods(revision).ready]
        if not missing:
            return
        names = " and ".join(self._name(revision) for revision in missing)
        self.save(self.state.phase, f"no pod of {names} is ready: waiting", within=self.plan.progress_deadline)
        for revision in missing:
            self.wait_ready(revision, 1)

    def _tell_strangers(self, pods: dict[str, list[PodTarget]]) -> None:
        """Pods that somebody gave another label belong to no Deployment, but the shared Service selects them."""
        if self.weight_in_force() and not self.state.routed:
            for pod in [each for revision in pods.keys() - {self.candidate, self.stable} for each in pods[revision]]:
                delete = f"kubectl -n {self.names.namespace} delete pod {pod.name}"
                self.say(f"Pod {pod.name} has live traffic and is no part of this rollout (revision '{pod.revision}'): {delete}")

    def _note(self, found: list[Measurement], results: dict[str, MetricResult]) -> None:
        measured = self.state.measured(found, results, self.clock.now())
        self.objects.guard()
        self.book.save(measured)
        self.state = measured
        bad = [measurement.text for measurement in found if measurement.outcome != "successful"]
        self.say("; ".join(bad) if bad else f"{len(found)} metrics are within their bounds")

    # --- ends and actions ---------------------------------------------------------------------------------------------------------

    def _finish(self, outcome: Phase, text: str) -> None:
        weight = 0.0 if outcome == "aborted" else 100.0
        history = self.state.finished(outcome, self.state.reason, self.clock.now())
        self.save(outcome, text, history=history, asked=weight, achieved=weight)

    def _fail(self, error: DualError) -> None:
        """Go back, unless that is under way, nobody knows whether it is needed, or the pair is published and would be torn apart."""
        if self.state.phase == "aborting" or isinstance(error, UnavailableError) or self.is_published():
            raise error
        self._abort(f"going back: {error}", str(error))

    def _abort(self, text: str, reason: str) -> None:
        self.save("aborting", text, within=self.plan.progress_deadline, reason=reason, asked=0.0)

    def _obey(self, action: str) -> None:
        phase = self.state.phase
        if action == "undo" and self.may_undo and self.is_published():
            raise UndoAsked
        if action in ("abort", "undo") and not self.is_published():
            return self._abort(f"{action} was asked for", f"{action} was asked for by an operator")
        if action == "promote" and phase in self._STEPWISE:
            return self.save("promote", "promote was asked for", within=self.plan.progress_deadline, paused_until="")
        if action == "pause" and (phase in ("canary", "analyze") or (phase == "paused" and self.state.paused_until)):
            return self._pause("pause was asked for; waiting for somebody to resume or promote")
        if action == "resume" and phase == "paused":
            return self._resume()
        way = "; both halves go back with: dual rollout undo" if action in ("abort", "undo") else ""
        return self.save(phase, f"{action[:LONGEST_ACTION]} was asked for, and means nothing in the phase {phase}: nothing was done{way}")

    def _resume(self) -> None:
        if self.is_stepwise() and not self.state.stepped_at:
            # Paused before the step's weight was there.
            return self.save("canary", "resume was asked for", within=self.plan.progress_deadline, paused_until="")
        verdict = verdict_of(self.state.results, self.rehearsal(), compare=bool(self.stable))
        if self.rehearses() and not self.state.gated and verdict.outcome == "running":
            return self.save("analyze", "resume was asked for", paused_until="")
        return self._advance("resume was asked for")
