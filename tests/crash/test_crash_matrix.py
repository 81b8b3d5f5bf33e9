"""Killed before and after every write, stopped before every write and overtaken: the ending is right, and no moment is wrong.

The API server is real; pods get ready at once (cluster_site.Controller). Invariants are checked after each write of each victim.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from serving.rollout.cluster.api import Api
from serving.rollout.cluster.names import NAME, REVISION, Names
from serving.rollout.cluster.objects import live_of
from serving.rollout.cluster.state import Book
from tests.crash.cluster_site import RELEASES, REPLICAS_WANTED, Controller, FileChannel
from tests.crash.conftest import ApiOf, channel_of
from tests.crash.mutants import MUTANTS
from tests.crash.victims import Moment, Order, Zygotes

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1500)]
SCENARIOS = [
    ("canary", ""),
    ("canary", "analysis"),
    ("canary", "post"),
    ("blue-green", ""),
    ("blue-green", "preview"),
    ("blue-green", "post"),
]
Settled = Callable[[], Order]
Case = Callable[[], None]


class Harness:
    """Runs cases and collects what went wrong in them."""

    def __init__(self, settled: Settled, api_of: ApiOf, zygotes: Zygotes, controller: Controller) -> None:
        self.settled, self.api_of, self.zygotes, self.controller = settled, api_of, zygotes, controller
        self.wrong: list[str] = []
        self.cases = 0

    def all(self, cases: Iterable[Case], *, until_wrong: bool = False) -> None:
        """Run them, several at once; with `until_wrong` no more of them once something went wrong."""

        def run(case: Case) -> None:
            if not (until_wrong and self.wrong):
                case()

        with ThreadPoolExecutor(self.zygotes.count) as pool:
            list(pool.map(run, cases))

    def writes(self, strategy: str, fails: str, mutant: str = "") -> int:
        """How many writes a rollout of that kind has when nothing happens to it."""
        order = replace(self.settled(), release="b", strategy=strategy, fails=fails, run_id="count", mutant=mutant)
        with self.zygotes.lent() as zygote:
            zygote.run(order)
        self.close(order, fails, "nothing happened")
        return int(Path(f"{order.channel}.writes").read_text())

    def killed(self, strategy: str, fails: str, write: int, moment: Moment, mutant: str = "", *, unready: bool = False) -> None:
        """Killed at that write, and its retry at its own same one; then a clean retry. With `unready` no new pod ever gets ready."""
        order = replace(self.settled(), release="b", strategy=strategy, fails=fails, mutant=mutant)
        if unready:
            self.controller.left.add(order.namespace)
        with self.zygotes.lent() as zygote:
            for attempt in (1, 2):
                zygote.run(replace(order, run_id=f"killed-{attempt}", write=write, moment=moment))
            code = zygote.run(replace(order, run_id="clean"))["code"]
        self.close(order, fails, f"{strategy} {fails or 'good'}, killed {moment} write {write}, clean retry {code}", code)

    def stopped(self, strategy: str, fails: str, write: int, by: str, mutant: str = "") -> None:
        """Stopped before that write, overtaken by a complete run of release `by`, then resumed."""
        order = replace(self.settled(), release="b", strategy=strategy, fails=fails, mutant=mutant)
        with self.zygotes.lent() as zygote:
            sleeper = zygote.run(replace(order, run_id="sleeper", write=write, moment="stop"))
            zygote.run(replace(order, run_id="overtaker", release=by, fails="" if by == "c" else fails))
            end = zygote.resume(sleeper["pid"]) if sleeper["stopped"] else sleeper
        what = f"{strategy} {fails or 'good'}, stopped before write {write}, overtaken by {by}: {end}"
        self.close(order, fails if by == "b" else "", what, of=by)

    def close(self, order: Order, fails: str, what: str, code: int | None = None, *, of: str = "b") -> None:
        """Compare the ending with the right one."""
        self.cases += 1
        expected = "a" if fails else of
        found = [*_ending(self.api_of(order.namespace), channel_of(order), RELEASES[expected])]
        if code is not None and code != (1 if fails else 0):
            found.append(f"exit code {code}")
        log = Path(f"{order.channel}.violations")
        found += log.read_text().splitlines() if log.exists() else []
        self.wrong += [f"{what}: {each}" for each in found]


def _ending(api: Api, channel: FileChannel, release: str) -> Iterator[str]:
    state = Book(api, Names(namespace=api.namespace)).read()
    live = live_of(api.get("Service", "classifier"))
    if channel.release() != release:
        yield f"the channel names {channel.release()}, not {release}"
    if live.shared or not live.stable.startswith(release):
        yield f"the live Service selects {live}, not {release}"
    if state is None or not state.is_over():
        yield f"the rollout is not over: {state.phase if state else None}"
    for deployment in api.list("Deployment", f"{NAME}=classifier"):
        revision, replicas = deployment["metadata"]["labels"].get(REVISION, ""), deployment["spec"]["replicas"]
        if revision and replicas != (REPLICAS_WANTED if revision.startswith(release) else 0):
            yield f"{revision} has {replicas} pods"


@pytest.fixture
def harness(settled: Settled, api_of: ApiOf, zygotes: Zygotes, controller: Controller) -> Harness:
    return Harness(settled, api_of, zygotes, controller)


@pytest.mark.parametrize(("strategy", "fails"), SCENARIOS)
def test_killed_at_every_write(harness: Harness, strategy: str, fails: str) -> None:
    writes = harness.writes(strategy, fails)
    assert harness.wrong == []
    moments: list[Moment] = ["before", "after"]
    harness.all(partial(harness.killed, strategy, fails, write, moment) for write in range(1, writes + 1) for moment in moments)
    assert harness.wrong == []
    assert harness.cases == 2 * writes + 1


@pytest.mark.parametrize("by", ["b", "c"])
@pytest.mark.parametrize(("strategy", "fails"), [("canary", ""), ("canary", "analysis"), ("blue-green", ""), ("blue-green", "post")])
def test_stopped_before_every_write_and_overtaken(harness: Harness, strategy: str, fails: str, by: str) -> None:
    harness.all(partial(harness.stopped, strategy, fails, write, by) for write in range(1, harness.writes(strategy, fails) + 1))
    assert harness.wrong == []


CATCHES: dict[str, tuple[Callable[..., None], str]] = {
    "scale_down_before_the_switch": (
        partial(Harness.killed, strategy="blue-green", fails="", moment="before"),
        "live traffic goes to 0 ready",
    ),
    "save_before_acting": (
        partial(Harness.killed, strategy="canary", fails="analysis", moment="after"),
        "is over (aborted) and weight is left",
    ),
    "no_epoch_test": (partial(Harness.stopped, strategy="canary", fails="analysis", by="c"), "bbbbbbbbbbbb-2a01cd has 1 pods"),
    "weight_before_ready": (
        partial(Harness.killed, strategy="canary", fails="", moment="before", unready=True),
        "weight without a ready candidate",
    ),
    "save_without_comparing": (partial(Harness.stopped, strategy="blue-green", fails="", by="c"), "the channel names bbbbbbbbbbbb"),
}
"""Which cases catch a mutant, and what they must say of it."""


@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_the_harness_catches_mistakes(harness: Harness, mutant: str) -> None:
    case, found = CATCHES[mutant]
    harness.all((partial(case, harness, write=write, mutant=mutant) for write in range(1, 26)), until_wrong=True)
    assert any(found in wrong for wrong in harness.wrong), f"{mutant} was not caught: {harness.wrong}"
