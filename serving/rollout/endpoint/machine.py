"""The state machine: prepare → (canary → analyze → paused)… → promote → post_analysis → drain → promoted, in terms of a traffic split.

From any phase before the publication a failure leads to aborting → aborted. Every phase compares and writes until the endpoint is as the
phase wants it, and only then saves the next phase. It may be run by any process, at any time, twice.
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from components.core.errors import ConflictError, DualError, RolloutError, UnavailableError
from serving.rollout.analysis.rules import Verdict, due, tally, verdict_of
from serving.rollout.analysis.settings import AnalysisSettings
from serving.rollout.endpoint.analyst import Seen, predict_address
from serving.rollout.endpoint.bodies import display_name
from serving.rollout.endpoint.split import Split
from serving.rollout.endpoint.state import EndpointRollout, Phase
from serving.rollout.endpoint.turn import EndpointGoneError, SplitChanged, Turn, Wanted, hash_of, last_part

LONGEST_ACTION = 40
_SAYS = {"failed": "failed", "error": "could not be made", "inconclusive": "was inconclusive"}
_STEPWISE: frozenset[Phase] = frozenset({"canary", "analyze", "paused"})


class Judge(Protocol):
    """Who measures both deployed models."""

    def measure(self, address: str, candidate: str, stable: str) -> Seen:
        """One round."""
        ...


@dataclass(kw_only=True)
class Machine(Turn):
    """What a rollout does in each phase; `begin` makes one."""

    judge: Judge

    def run(self, *, finish: bool = False) -> EndpointRollout:
        """Go on until all our traffic is the candidate's and its analysis passed (drain); with `finish` until the old model is undeployed.

        Raises `RolloutError` with the reason once it has gone back, `ConflictError` if another process took over (nothing here is ours to
        undo then), `DualError` if the service can't be reached: then the next run goes on from where this one stopped.
        """
        while not self.state.is_over() and (finish or self.state.phase != "drain"):
            try:
                self._own()
                self.look()
                getattr(self, f"_{self.state.phase}")()
            except Wanted as wanted:
                self._obey(wanted.action)
            except SplitChanged as changed:
                self._heed(changed)
            except ConflictError:
                raise
            except DualError as error:
                self._fail(error)
        if self.state.phase == "aborted":
            raise RolloutError(self.state.reason.rstrip("."))
        return self.state

    def abort(self, reason: str) -> EndpointRollout:
        """Go back now; the state at the end. Raises as `run` does, but for the rollout that went back as it should."""
        if self.state.phase != "aborting":
            self._abort(reason, reason)
        with suppress(RolloutError):
            self.run()
        return self.state

    def _own(self) -> None:
        try:
            self.claim()
        except EndpointGoneError:
            # There is nothing left to go back to: that is an end, too.
            if self.state.phase != "aborting":
                raise

    def is_stepwise(self) -> bool:
        """Whether the candidate's share grows by steps."""
        return self.state.kind == "rollout" and self.stable not in ("", self.candidate)

    # --- phases -------------------------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Live traffic is the stable model's alone; the candidate is deployed and has none."""
        self.ensure_endpoint()
        self._choose()
        split = self.set_split(0, candidate="", stable=self.stable) if self.stable else {}
        # First, because a quota may leave no room for a third.
        self._undeploy_all_but({self.stable, self.candidate})
        candidate = self.state.candidate
        if not candidate.version:
            candidate = self.ensure_version(candidate)
            self.keep(self.state.model_copy(update={"candidate": candidate}))
        self.ensure_deployed(candidate)
        ready = f"{candidate.release} is deployed as {candidate.deployed} (version {candidate.version.rpartition('@')[2]}), without traffic"
        if self.is_stepwise():
            return self._enter_step(0, ready, split=split)
        return self.save("promote", ready, within=self.state.plan.progress_deadline, split=split)

    def _choose(self) -> None:
        """The id that the candidate is deployed under is known to the state before it is used."""
        if not self.candidate:
            chosen = str(10**9 + hash_of(f"{self.state.candidate.release}/{self.state.epoch}/{self.state.started}") % (9 * 10**9))
            candidate = self.state.candidate.model_copy(update={"deployed": chosen})
            self.keep(self.state.model_copy(update={"candidate": candidate}))

    def _canary(self) -> None:
        step, steps = self.state.step, self.state.plan.steps
        split = self.set_split(steps[step].weight, candidate=self.candidate, stable=self.stable)
        text = f"step {step + 1} of {len(steps)}: {steps[step].weight} % asked, the split is {self._shown(split)}"
        self.save("analyze", text, split=split, **self._anew())

    def _analyze(self) -> None:
        pause = self.state.plan.steps[self.state.step].pause
        verdict = self._measure(self.state.plan.analysis, compare=True, lasts=pause if pause != "manual" else 0.0)
        if verdict.outcome == "inconclusive":
            why = "; ".join(verdict.failures())
            return self._pause(f"inconclusive: {why}; waiting for somebody to resume, promote or abort")
        if verdict.outcome != "successful":
            raise RolloutError(f"the analysis {_SAYS[verdict.outcome]}: {'; '.join(verdict.failures())}", where=self.where())
        passed = f"the step's analysis passed, {self.state.achieved:.1f} % of the answers were the candidate's"
        if pause == "manual":
            return self._pause(f"{passed}; waiting for somebody to resume or promote")
        if pause and self.state.plan.analysis.count:
            return self._pause(passed, seconds=pause)
        return self._advance(passed)

    def _paused(self) -> None:
        until = self.state.paused_until
        while not until or self.clock.now() < datetime.fromisoformat(until):
            self.tick()
            self.check_split(self.endpoint())
        self._advance("the pause is over")

    def _promote(self) -> None:
        split = self.set_split(100, candidate=self.candidate, stable=self.stable)
        text = f"the split is {self._shown(split)}"
        self.save("post_analysis", text, asked=100.0, split=split, within=self.state.plan.progress_deadline, **self._anew())

    def _post_analysis(self) -> None:
        if self.state.plan.post_count and self.state.kind == "rollout":
            verdict = self._measure(self.state.plan.analysis.model_copy(update={"count": self.state.plan.post_count}), compare=False)
            # All traffic is there already: what can't be judged is not left there.
            if verdict.outcome != "successful":
                why = f"the analysis after the switch {_SAYS[verdict.outcome]}: {'; '.join(verdict.failures())}"
                raise RolloutError(why, where=self.where())
        self.check_split(self.endpoint())
        old = self.stable not in ("", self.candidate)
        until = self.clock.now() + timedelta(seconds=self.state.plan.scale_down_delay if old else 0.0)
        kept = f"the old model stays deployed at 0 % until {until:%H:%M:%S} UTC, and" if old else "the rollout is not over"
        text = f"{kept} until the pair is published"
        self.save("drain", text, within=self.state.plan.publish_within, drain_until=until.isoformat(timespec="milliseconds"))

    def _drain(self) -> None:
        """The old model goes once the pair is published and the delay is over; without a publication in time everything goes back."""
        while not (published := self.is_published()) or self.clock.now() < datetime.fromisoformat(self.state.drain_until):
            if not published:
                self.check_split(self.endpoint())
                if self.is_late():
                    what = f"the pair was not published within {self.state.plan.publish_within:g} s of the switch"
                    raise RolloutError(what, where=self.where(), fix="Run again: both halves are published, or none")
            self.tick()
        self._undeploy_all_but({self.candidate})
        outcome: Phase = "promoted" if self.state.kind == "rollout" else "rolled_back"
        self._finish(outcome, f"{self.state.candidate.release} is stable; the old model is undeployed")

    def _aborting(self) -> None:
        """Traffic first: it is where it was, by one write. Then the candidate goes."""
        origin = self.state.stable.release if self.state.stable else ""
        text = f"live traffic is where it was: {origin or 'nowhere (there was no release before)'}"
        try:
            if self.state.endpoint:
                self._back_to_stable()
                self._take_away_candidate()
        except EndpointGoneError as error:
            text = f"nothing is served: {error.what}"
        self._finish("aborted", text)

    def _take_away_candidate(self) -> None:
        # Its deployment may still be under way: it would stay, and cost.
        self.settle(self.state.endpoint, "the deployment that was begun")
        if self.candidate not in ("", self.stable):
            self.undeploy(self.candidate)

    def _back_to_stable(self) -> None:
        if self.state.stable and self.stable not in self.mine(self.endpoint()):
            self.say(f"{self.state.stable.release} was undeployed by somebody: it is deployed again")
            self.ensure_deployed(self.ensure_version(self.state.stable))
        if self.stable != self.candidate:
            self.set_split(0, candidate=self.candidate, stable=self.stable)

    def _undeploy_all_but(self, kept: set[str]) -> None:
        self.settle(self.state.endpoint, "what was begun on the endpoint")
        endpoint = self.endpoint()
        for identity in self.mine(endpoint):
            if identity in kept:
                continue
            if endpoint.get("trafficSplit", {}).get(identity):
                # Only an operator can have given it some since the split was set.
                self.say(f"deployed model {identity} has traffic again: it stays")
            else:
                self.undeploy(identity)

    def is_published(self) -> bool:
        """Whether the pair is published already: then the cloud half alone must not go back."""
        return self.state.phase == "drain" and self.published(self.state.candidate.release)

    # --- measuring ----------------------------------------------------------------------------------------------------------------

    def _measure(self, settings: AnalysisSettings, *, compare: bool, lasts: float = 0.0) -> Verdict:
        """Measure until there is a verdict; with `count: 0` for as long as the step `lasts` (seconds)."""
        began = datetime.fromisoformat(self.state.stepped_at)
        compare = compare and self.is_stepwise()
        while True:
            over = not settings.count and self.clock.now() >= began + timedelta(seconds=lasts)
            verdict = verdict_of(self.state.results, settings, compare=compare, over=over)
            self.state = self.state.model_copy(update={"checks": verdict.reasons})
            if verdict.outcome != "running":
                return verdict
            last = datetime.fromisoformat(self.state.measured_at) if self.state.measured_at else None
            while (left := (due(settings, began, last) - self.clock.now()).total_seconds()) > 0:
                self.clock.sleep(min(left, self.state.plan.poll_seconds))
                self.look()
            endpoint = self.endpoint()
            self.check_split(endpoint)
            seen = self.judge.measure(predict_address(endpoint, self.service.wire), self.candidate, self.stable if compare else "")
            self._note(seen, settings)

    def _note(self, seen: Seen, settings: AnalysisSettings) -> None:
        found = [each for each in seen.measurements if each.metric in settings.metrics()]
        self.look()
        results = tally(found, settings, self.state.results)
        measured = self.state.measured(found, results, seen.answered, self.clock.now())
        if not self.state.measured_at:
            text = f"{measured.achieved:.1f} % of {sum(measured.answered.values())} answers were the candidate's"
            measured = measured.to(measured.phase, text, now=self.clock.now())
        self.keep(measured)
        bad = [each.text for each in found if each.outcome != "successful"]
        counted = f"{sum(seen.answered.values())} answers, {self.state.achieved:.1f} % of the step's by the candidate"
        self.say("; ".join(bad) if bad else f"{len(found)} metrics are within their bounds ({counted})")

    def _anew(self) -> dict[str, Any]:
        return {
            "results": {},
            "measured_at": "",
            "stepped_at": self.clock.now().isoformat(timespec="milliseconds"),
            "answered": {},
            "achieved": 0.0,
        }

    def _shown(self, split: Split) -> str:
        names = {self.stable: self.state.stable.release if self.state.stable else "", self.candidate: self.state.candidate.release}
        return ", ".join(f"{names.get(identity, identity)} {share} %" for identity, share in split.items())

    # --- steps, ends and actions --------------------------------------------------------------------------------------------------

    def _enter_step(self, step: int, text: str, **changes: Any) -> None:
        weight = float(self.state.plan.steps[step].weight)
        anew = {**self._anew(), "stepped_at": ""}
        self.save("canary", text, within=self.state.plan.progress_deadline, step=step, asked=weight, paused_until="", **anew, **changes)

    def _advance(self, text: str, **changes: Any) -> None:
        following = self.state.step + 1
        if self.is_stepwise() and following < len(self.state.plan.steps) and not self.state.gated:
            return self._enter_step(following, text, **changes)
        if self.state.plan.gate and self.state.kind == "rollout" and not self.state.gated:
            return self._pause(f"{text}; waiting for somebody to promote", gated=True, **changes)
        return self.save("promote", text, within=self.state.plan.progress_deadline, paused_until="", **changes)

    def _pause(self, text: str, *, seconds: float = 0.0, **changes: Any) -> None:
        until = (self.clock.now() + timedelta(seconds=seconds)).isoformat(timespec="milliseconds") if seconds else ""
        self.save("paused", text, paused_until=until, **changes)

    def _finish(self, outcome: Phase, text: str) -> None:
        history = self.state.finished(outcome, self.state.reason, self.clock.now())
        self.save(outcome, text, history=history, asked=0.0 if outcome == "aborted" else 100.0)

    def _fail(self, error: DualError) -> None:
        """Go back, unless that is under way, nobody knows whether it is needed, or the pair is published and would be torn apart."""
        if self.state.phase == "aborting" or isinstance(error, UnavailableError) or self.is_published():
            raise error
        self._abort(f"going back: {error}", str(error))

    def _abort(self, text: str, reason: str) -> None:
        within = self.state.plan.progress_deadline
        self.save("aborting", text, within=within, reason=reason, asked=0.0, split=None, answered={}, achieved=0.0)

    def _heed(self, changed: SplitChanged) -> None:
        """Somebody moved the traffic by hand: it is left so before the switch, and after it the pair goes back whole."""
        place = f"endpoint '{display_name(self.state.name, self.state.place)}' ({last_part(self.state.endpoint)})"
        what = f"somebody changed the traffic split of {place}: {changed.found}, was {changed.left}"
        if self.state.phase in _STEPWISE:
            way = "it is left so: resume sets the step's weight again, promote moves all traffic, abort brings all back to stable"
            return self._pause(f"{what}; {way}", split=None, stepped_at="")
        return self._abort(f"going back: {what}", what)

    def _obey(self, action: str) -> None:
        phase = self.state.phase
        if action in ("abort", "undo") and not self.is_published():
            return self._abort(f"{action} was asked for", f"{action} was asked for by an operator")
        if action == "promote" and phase in _STEPWISE:
            return self.save("promote", "promote was asked for", within=self.state.plan.progress_deadline, paused_until="", split=None)
        if action == "pause" and (phase in ("canary", "analyze") or (phase == "paused" and self.state.paused_until)):
            return self._pause("pause was asked for; waiting for somebody to resume or promote")
        if action == "resume" and phase == "paused":
            return self._resume()
        way = "; both halves go back with: dual rollout undo" if action in ("abort", "undo") else ""
        return self.save(phase, f"{action[:LONGEST_ACTION]} was asked for, and means nothing in the phase {phase}: nothing was done{way}")

    def _resume(self) -> None:
        if not self.state.stepped_at:
            # The step's weight was never there, or somebody took it away.
            within = self.state.plan.progress_deadline
            return self.save("canary", "resume was asked for", within=within, paused_until="", split=None)
        verdict = verdict_of(self.state.results, self.state.plan.analysis, compare=self.is_stepwise())
        if not self.state.gated and verdict.outcome == "running":
            return self.save("analyze", "resume was asked for", paused_until="")
        return self._advance("resume was asked for")
