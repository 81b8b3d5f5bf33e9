"""Rollouts on a real cluster under a constant load of real predict requests: what clients see in each phase, and what it costs.

    python -m benchmarks.rollout [--short] [--json FILE] [--requests 100000] [--rate 120]

Needs the rig (../shared/rig, or $DUAL_SHARED) and root: it brings a cluster up, builds both images, applies the manifests, and takes all of
it down. While clients ask all the time, over REST and gRPC, releases are promoted by canary and by blue-green, a slow one is left, a wrong
one is refused, and the last promotion is undone, again and again until so many requests were sent. Every answer names the release that
gave it. `failed` and `wrong` must be 0.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.load import Answered, Load, quantile, share_of

SCENARIOS = ("canary", "blue-green", "slow", "wrong", "undo")
_SHORT_REQUESTS = 2_000


@dataclass
class Course:
    """One rollout under load."""

    scenario: str
    ok: bool
    seconds: float
    writes: int
    """API writes, Events included."""
    detect_seconds: float = float("nan")
    """From the first live request that a bad candidate could get until live traffic had left it."""
    phases: dict[str, list[Answered]] = field(default_factory=dict)
    shares: list[tuple[float, float]] = field(default_factory=list)
    """Weight reported and weight seen, in percent, of each step."""


def main() -> int:
    """Measure and print; 1 if a request failed or was answered wrongly, or a rollout ended otherwise than it should."""
    options = _options()
    wanted = _SHORT_REQUESTS if options.short else options.requests
    answers, courses = measure(wanted, options.rate, options.clients)
    results = summary(answers, courses)
    print(table(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return int(bool(results["failed"] or results["wrong"] or results["bad_endings"]))


def measure(requests: int, rate: float, clients: int) -> tuple[list[Answered], list[Course]]:
    """All answers and all rollouts."""
    from tests.live.cluster import live_site, rig_cluster
    from tests.live.releases import make_releases

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cluster = stack.enter_context(rig_cluster(lambda text: print(text, file=sys.stderr, flush=True)))
        releases = make_releases(folder, {"a": "good", "b": "good", "c": "good", "slow": "slow", "wrong": "wrong"})
        site = stack.enter_context(live_site(cluster, releases, folder / "overlay", f"benchmark-{uuid4().hex[:6]}"))
        return _under_load(site, folder, requests, rate, clients)


def _under_load(site: Any, folder: Path, requests: int, rate: float, clients: int) -> tuple[list[Answered], list[Course]]:
    run(site, folder, [], "first", "a")
    site.await_service()
    courses = []
    with Load(site.target(), rate=rate, clients=clients, connection_seconds=0.3) as load:
        for scenario, release in _turns():
            courses.append(run(site, folder, load.answers, scenario, release))
            print(f"{scenario}: {courses[-1].seconds:.0f} s, {len(load.answers)} requests", file=sys.stderr, flush=True)
            if len(load.answers) >= requests and len(courses) >= len(SCENARIOS):
                break
        load.wait_for(requests)
    return load.answers, courses


def _turns() -> Iterator[tuple[str, str]]:
    """Scenario and release; good releases change places, so that each of them is another than the one that serves."""
    good, turn = ("b", "c", "a"), 0
    while True:
        for scenario in SCENARIOS:
            if scenario in ("canary", "blue-green"):
                release, turn = good[turn % len(good)], turn + 1
                yield scenario, release
            else:
                yield scenario, scenario


def run(site: Any, folder: Path, answers: list[Answered], scenario: str, release: str) -> Course:
    """One rollout as a process of its own, with the rollout's own identity."""
    from tests.live.steps import Step, answers_between, spans, state_of

    before = state_of(site)
    began = time.monotonic()
    plan: dict[str, Any] = {"strategy": "blue-green" if scenario in ("blue-green", "first") else "canary"}
    if scenario == "canary":
        # Long enough at each weight to see it: connections are what is spread, and they are few.
        plan["analysis"] = {"count": 8}
    if scenario == "slow":
        plan["analysis"] = {"latency_p99_ms": {"max": 300.0}}
    if scenario == "undo":
        step = Step(site, folder, "undo")
    else:
        step = Step(site, folder, "start", site.releases[release], settings=site.settings(**plan))
    code = step.wait()
    state = state_of(site)
    ok = code == (1 if scenario in ("slow", "wrong") else 0) and state is not None and state != before
    course = Course(scenario, ok, time.monotonic() - began, _writes(step.output))
    if not ok:
        print(step.output, file=sys.stderr)
    for event, begin, end in spans(state.events if state else []):
        seen = answers_between(answers, begin, end)
        course.phases.setdefault(event.phase, []).extend(seen)
        if event.phase == "analyze" and event.achieved and scenario == "canary":
            # A proxy needs a moment to hear of new endpoints.
            settled = [each for each in seen if each.at > begin + 2]
            if len(settled) >= 200:
                course.shares.append((event.achieved, share_of(settled, site.releases[release])))
        if scenario == "slow" and event.phase == "aborted":
            first = next((b for e, b, _ in spans(state.events) if e.phase == "analyze"), begin) if state else begin
            course.detect_seconds = begin - first
    return course


def _writes(output: str) -> int:
    """API writes of a rollout, Events included, as it says itself at its end."""
    found = re.findall(r"asked the API server \d+ times, wrote (\d+) times", output)
    return int(found[-1]) if found else 0


def summary(answers: list[Answered], courses: list[Course]) -> dict[str, Any]:
    """The figures: latencies in milliseconds, times in seconds."""
    by_phase: dict[str, list[Answered]] = defaultdict(list)
    for course in courses:
        for phase, seen in course.phases.items():
            by_phase[phase] += seen
    detected = [course.detect_seconds for course in courses if course.scenario == "slow"]
    return {
        "requests": len(answers),
        "failed": sum(each.problem.startswith("failed") for each in answers),
        "wrong": sum(each.problem.startswith("wrong") for each in answers),
        "problems": sorted({each.problem[:200] for each in answers if each.problem})[:10],
        "rollouts": len(courses),
        "bad_endings": sum(not course.ok for course in courses),
        "p50_ms": quantile(answers, 0.5),
        "p99_ms": quantile(answers, 0.99),
        "phases": {name: _phase(seen) for name, seen in by_phase.items()},
        "scenarios": {name: _seconds([c for c in courses if c.scenario == name]) for name in SCENARIOS},
        "detect_and_leave_seconds": max(detected, default=float("nan")),
        "shares": [share for course in courses for share in course.shares],
        "largest_share_error": max((abs(a - b) for course in courses for a, b in course.shares), default=float("nan")),
        "per_release": {release: sum(each.release == release for each in answers) for release in {each.release for each in answers}},
    }


def _phase(seen: list[Answered]) -> dict[str, float]:
    return {
        "requests": len(seen),
        "failed": sum(bool(each.problem) for each in seen),
        "p50_ms": quantile(seen, 0.5),
        "p99_ms": quantile(seen, 0.99),
    }


def _seconds(courses: list[Course]) -> dict[str, float]:
    times = [course.seconds for course in courses]
    return {
        "rollouts": len(times),
        "seconds": sum(times) / len(times) if times else float("nan"),
        "api_writes": max((course.writes for course in courses), default=0),
    }


def table(results: dict[str, Any]) -> str:
    """The figures as text."""
    lines = [f"{'phase':<18}{'requests':>10}{'failed':>8}{'p50 ms':>9}{'p99 ms':>9}"]
    for name, seen in results["phases"].items():
        lines.append(f"{name:<18}{seen['requests']:>10}{seen['failed']:>8}{seen['p50_ms']:>9.1f}{seen['p99_ms']:>9.1f}")
    lines.append(f"{'all':<18}{results['requests']:>10}{results['failed']:>8}{results['p50_ms']:>9.1f}{results['p99_ms']:>9.1f}")
    for name, seen in results["scenarios"].items():
        lines.append(
            f"{name:<18}{seen['rollouts']:>4} rollout(s), {seen['seconds']:.1f} s and at most {seen['api_writes']} API writes each"
        )
    lines.append(f"wrong answers {results['wrong']}, rollouts that ended otherwise than they should {results['bad_endings']}")
    lines.append(f"slow candidate detected and left within {results['detect_and_leave_seconds']:.1f} s of its first live request")
    lines.append(f"weight seen against weight reported: at most {results['largest_share_error']:.1f} points apart")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help=f"one round of the scenarios, {_SHORT_REQUESTS:,} requests")
    parser.add_argument("--requests", type=int, default=100_000, help="at least so many")
    parser.add_argument("--rate", type=float, default=120.0, help="requests per second, all clients together")
    parser.add_argument("--clients", type=int, default=8, help="half of them speak REST, half gRPC")
    parser.add_argument("--json", type=Path, help="write the figures there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
