"""The strategy `labels` as a state machine: prepare → analyze → promote → promoted, and aborting → aborted from any of them.

Each phase acts idempotently, then saves the next one by compare-and-swap: a process may die anywhere, and the next run of the same
release takes over where live traffic was. Before `promote` live traffic never moves; after `promoted` it moves back by itself unless
the channel names the release before the deadline.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from components.core.channel import read_channel
from components.core.errors import ConflictError, DualError, RolloutError
from components.core.gate import combine
from components.core.release import read_release, release_version
from components.core.stores import Store
from components.roll_out_cloud.settings import RollOutCloudSettings
from serving.rollout.converge import converge, converge_all, remove_version
from serving.rollout.local import desired
from serving.rollout.servers import Server
from serving.rollout.state import SERVING, Event, Phase, Rollout, checked, read_rollout, save_rollout, stamp, utc_now
from serving.rollout.traffic import Traffic, golden_queries, judge_traffic, replay

_MARGIN = 60.0


@dataclass
class LabelRollout:
    """One process' hold on a rollout; `begin_rollout` makes it."""

    store: Store
    servers: list[Server]
    settings: RollOutCloudSettings
    rollout: Rollout
    generation: str
    say: Callable[[str], None]
    candidate: Traffic = field(default_factory=Traffic)
    stable: Traffic = field(default_factory=Traffic)

    def run(self) -> Rollout:
        """Go on until the candidate is promoted; on any failure abort, and raise `RolloutError` (or what was wrong) with the reason."""
        phases = {"prepare": self._prepare, "analyze": self._analyze, "promote": self._promote}
        try:
            while (phase := phases.get(self.rollout.phase)) is not None:
                phase()
        except ConflictError:
            # Somebody else owns the rollout now: nothing here is ours to undo.
            raise
        except DualError as error:
            self._abort(str(error))
            raise
        return self.rollout

    def _prepare(self) -> None:
        self._converge()
        where = ", ".join(str(server) for server in self.servers)
        seconds = 2 * self.settings.requests * self.settings.max_p99_ms / 1000 / self.settings.concurrency
        self._save("analyze", f"loaded beside the running version: {where}", within=self.settings.load_timeout + seconds + _MARGIN)

    def _analyze(self) -> None:
        release = read_release(self.store, self.rollout.release)
        queries = golden_queries(self.store, release)
        versions = [release.version] + ([release_version(self.rollout.stable)] if self.rollout.stable else [])
        for server in self.servers:
            seen = replay(server, versions, queries, requests=self.settings.requests, concurrency=self.settings.concurrency)
            self.candidate.merge(seen[release.version])
            if self.rollout.stable:
                self.stable.merge(seen[versions[1]])
        checks = judge_traffic(self.candidate, self.stable if self.rollout.stable else None, self.settings)
        self.rollout = checked(self.rollout, checks)
        verdict = combine("roll_out_cloud", checks, self.rollout.stable)
        if not verdict.blessed:
            raise RolloutError(f"the candidate failed under traffic: {'; '.join(verdict.failures())}", where=f"release {release.id}")
        self._save("promote", f"{self.candidate.sent} replayed requests passed", within=self.settings.publish_within)

    def _promote(self) -> None:
        self._converge()
        self._save("promoted", "the label stable selects the candidate", within=self.settings.publish_within)

    def _converge(self) -> None:
        want = desired(self.store)
        if self.rollout.release not in want.loaded:
            what = "the deadline passed, or another release was published meanwhile"
            raise RolloutError(what, where=f"rollout of {self.rollout.release}", fix="Run again")
        for server in self.servers:
            converge(self.store, server, want, self.settings.load_timeout)

    def _save(self, phase: Phase, text: str, *, within: float = 0.0, reason: str = "") -> None:
        following = self.rollout.to(phase, text, now=utc_now(), within=within, reason=reason)
        self.generation = save_rollout(self.store, following, self.generation)
        self.rollout = following
        self.say(f"{phase}: {text}")

    def _abort(self, reason: str) -> None:
        self._save("aborting", "going back to what was", reason=reason)
        problems = fall_back(self.store, self.servers, self.rollout.release, self.settings.load_timeout)
        for problem in problems:
            self.say(f"could not be told, it follows by itself: {problem}")
        self._save("aborted", "live traffic is where it was", reason=reason)


def begin_rollout(
    store: Store, release: str, run_id: str, *, servers: list[Server], settings: RollOutCloudSettings, say: Callable[[str], None]
) -> LabelRollout:
    """Start, or take over, the rollout of a release under a new epoch; any other rollout in progress is superseded by it."""
    found, channel, now = read_rollout(store), read_channel(store), utc_now()
    current, sequence = (channel[0].release, channel[0].sequence) if channel else ("", 0)
    before = found[0] if found else None
    alive = before is not None and before.sequence == sequence and before.is_alive(now)
    mine = alive and before is not None and before.release == release
    phase: Phase = "promote" if before is not None and mine and before.phase in SERVING else "prepare"
    text, events = _opening(before, release, mine=mine, alive=alive)
    rollout = Rollout(
        epoch=before.epoch + 1 if before else 1,
        phase=phase,
        release=release,
        stable=current,
        sequence=sequence,
        run_id=run_id,
        deadline=stamp(now),
        checks=before.checks if before is not None and mine else [],
        events=events,
    )
    within = settings.publish_within if phase == "promote" else settings.load_timeout * max(1, len(servers)) + _MARGIN
    rollout = rollout.to(phase, text, now=now, within=within)
    generation = save_rollout(store, rollout, found[1] if found else None)
    say(f"{phase}: {text}")
    return LabelRollout(store, servers, settings, rollout, generation, say)


def _opening(before: Rollout | None, release: str, *, mine: bool, alive: bool) -> tuple[str, list[Event]]:
    if before is None or not alive:
        return f"epoch {before.epoch + 1 if before else 1}: rollout of {release}", []
    if mine:
        return f"epoch {before.epoch + 1}: took the rollout over from run {before.run_id}", before.events
    return f"epoch {before.epoch + 1}: supersedes the rollout of {before.release} (run {before.run_id})", []


def fall_back(store: Store, servers: list[Server], release: str, timeout: float) -> list[str]:
    """Bring servers to the settled state and delete the candidate's staged files; returns what went wrong."""
    want = desired(store)
    problems = converge_all(store, servers, want, timeout)
    if release not in want.loaded and not problems:
        for server in servers:
            remove_version(server, release)
    return problems


def abort_rollout(store: Store, servers: list[Server], *, run_id: str, reason: str, timeout: float = 60.0) -> Rollout | None:
    """Abort the rollout that `run_id` owns: live traffic goes back to the channel's release. None (and no write) if it owns none."""
    found = read_rollout(store)
    if found is None or found[0].run_id != run_id or not found[0].is_alive(utc_now()):
        return None
    channel = read_channel(store)
    if channel is not None and channel[0].release == found[0].release:
        return None
    return _end(store, servers, found, reason, timeout)


def _end(store: Store, servers: list[Server], found: tuple[Rollout, str], reason: str, timeout: float) -> Rollout:
    rollout = found[0].to("aborting", "going back to what was", now=utc_now(), reason=reason)
    generation = save_rollout(store, rollout, found[1])
    fall_back(store, servers, rollout.release, timeout)
    rollout = rollout.to("aborted", "live traffic is where it was", now=utc_now(), reason=reason)
    save_rollout(store, rollout, generation)
    return rollout
