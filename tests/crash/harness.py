"""Cases in which a process is killed or stopped at one of its writes, and what went wrong in them."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from serving.rollout.cluster.api import Api
from serving.rollout.cluster.names import NAME, REVISION, Names
from serving.rollout.cluster.objects import live_of
from serving.rollout.cluster.state import Book
from tests.crash.cluster_site import RELEASES, REPLICAS_WANTED, Controller, FileChannel
from tests.crash.conftest import ApiOf, channel_of
from tests.crash.victims import Moment, Order, Zygotes

Case = Callable[[], None]
Started = Callable[[str], Order]


@dataclass(frozen=True)
class Scenario:
    """What a process does that is killed or stopped."""

    strategy: str
    fails: str = ""
    """Where the release turns out to be bad; empty: it is good."""
    start: str = "promoted"
    release: str = "b"
    kind: Literal["rollout", "undo"] = "rollout"
    stays: str = "a"
    """What serves if the release is bad; empty: nothing."""

    def __str__(self) -> str:
        """As a test's name."""
        return "-".join([*self.start.split(), self.kind if self.kind == "undo" else self.strategy, self.fails or "good"])

    def ending(self) -> str:
        """The release that must serve in the end."""
        return self.stays if self.fails else self.release

    def code(self) -> int:
        """The exit code of a process that comes to the end."""
        return 1 if self.fails else 0


@dataclass(frozen=True)
class Course:
    """How a process goes to which nothing happens."""

    writes: int
    published: int
    """After which of its writes the pair was published; 0 if it was not."""

    def deaths(self) -> list[tuple[Moment, int]]:
        """Every moment at which a process may be killed that leaves another world behind.

        Before a write is after the one before it, since nothing is changed in between: but for the publication.
        """
        found: list[tuple[Moment, int]] = [("before", 1), *(("after", write) for write in range(1, self.writes + 1))]
        return [*found, ("before", self.published + 1)] if 0 < self.published < self.writes else found


class Harness:
    """Runs cases and collects what went wrong in them."""

    def __init__(self, started: Started, api_of: ApiOf, zygotes: Zygotes, controller: Controller) -> None:
        """Nothing is run yet."""
        self.started, self.api_of, self.zygotes, self.controller = started, api_of, zygotes, controller
        self.wrong: list[str] = []
        self.cases = 0

    def all(self, cases: Iterable[Case], *, until_wrong: bool = False) -> None:
        """Run them, several at once; with `until_wrong` no more of them once something went wrong."""

        def run(case: Case) -> None:
            if not (until_wrong and self.wrong):
                case()

        with ThreadPoolExecutor(self.zygotes.count) as pool:
            list(pool.map(run, cases))

    def order(self, scenario: Scenario, **how: Any) -> Order:
        """A new namespace, and what a process does in it."""
        what = {"release": scenario.release, "strategy": scenario.strategy, "fails": scenario.fails, "kind": scenario.kind}
        return replace(self.started(scenario.start), **what, **how)

    def course(self, scenario: Scenario) -> Course:
        """How it goes when nothing happens."""
        order = self.order(scenario, run_id="count")
        with self.zygotes.lent() as zygote:
            code = zygote.run(order)["code"]
        self.close(order, scenario.ending(), f"{scenario}, nothing happened", code, scenario.code())
        published = Path(f"{order.channel}.published")
        return Course(int(Path(f"{order.channel}.writes").read_text()), int(published.read_text()) if published.exists() else 0)

    def killed(self, scenario: Scenario, moment: Moment, write: int, mutant: str = "", *, unready: bool = False) -> None:
        """Killed at that write, and its retry at its own same one; then a clean retry. With `unready` no new pod ever gets ready."""
        order = self.order(scenario, mutant=mutant)
        if unready:
            self.controller.left.add(order.namespace)
        with self.zygotes.lent() as zygote:
            for attempt in (1, 2):
                zygote.run(replace(order, run_id=f"killed-{attempt}", write=write, moment=moment))
            code = zygote.run(replace(order, run_id="clean"))["code"]
        self.close(order, scenario.ending(), f"{scenario}, killed {moment} write {write}, clean retry {code}", code, scenario.code())

    def stopped(self, scenario: Scenario, by: str, write: int, mutant: str = "") -> None:
        """Stopped before that write, overtaken by a complete run, then resumed: by a rollout of release `by`, or by the same again."""
        order = self.order(scenario, mutant=mutant)
        overtaker = replace(order, run_id="overtaker")
        if by != "same":
            overtaker = replace(overtaker, release=by, fails="", kind="rollout")
        with self.zygotes.lent() as zygote:
            sleeper = zygote.run(replace(order, run_id="sleeper", write=write, moment="stop"))
            zygote.run(overtaker)
            end = zygote.resume(sleeper["pid"]) if sleeper["stopped"] else sleeper
        ending = scenario.ending() if by == "same" else by
        self.close(order, ending, f"{scenario}, stopped before write {write}, overtaken by {by}: {end}")

    def close(self, order: Order, ending: str, what: str, code: int = 0, expected: int = 0) -> None:
        """Compare the ending with the right one."""
        self.cases += 1
        found = [*_ending(self.api_of(order.namespace), channel_of(order), RELEASES[ending] if ending else "")]
        if code != expected:
            error = Path(f"{order.channel}.error")
            found.append(f"exit code {code}: {error.read_text() if error.exists() else 'see the log of the victims'}")
        log = Path(f"{order.channel}.violations")
        found += log.read_text().splitlines() if log.exists() else []
        self.wrong += [f"{what}: {each}" for each in found]


def _ending(api: Api, channel: FileChannel, release: str) -> Iterator[str]:
    state = Book(api, Names(namespace=api.namespace)).read()
    live = live_of(api.get("Service", "classifier"))
    if channel.release() != release:
        yield f"the channel names {channel.release()}, not {release}"
    if live.shared or live.stable[: len(RELEASES["a"])] != release:
        yield f"the live Service selects {live}, not {release}"
    if state is None or not state.is_over():
        yield f"the rollout is not over: {state.phase if state else None}"
    for deployment in api.list("Deployment", f"{NAME}=classifier"):
        revision, replicas = deployment["metadata"]["labels"].get(REVISION, ""), deployment["spec"]["replicas"]
        serves = bool(release) and revision.startswith(release)
        if revision and replicas != (REPLICAS_WANTED if serves else 0):
            yield f"{revision} has {replicas} pods"
