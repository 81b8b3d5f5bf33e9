"""What a holder does at each look, over every course of records, restarts and refusals: what serves is never taken away."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.errors import DualError
from components.core.release import release_version
from serving.fetch.hold import Holder, Stager
from serving.fetch.order import HoldOrder, Order
from serving.rollout.cluster.holding import Holding
from tests.rollout.fake_server import FakeServer

A, B, C = (letter * 12 for letter in "abc")
ORDER = HoldOrder("/store", "labels-000000", None, Path("/nowhere/classifier"))


@dataclass
class Shelf(Stager):
    """Files that are there at once, or refused."""

    files: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)

    def staged(self) -> set[int]:
        return set(self.files)

    def fetch(self, version: int, order: Order) -> None:
        if version not in self.refused:
            self.files.add(version)

    def remove(self, kept: object) -> None:
        self.files &= set(kept)  # pyright: ignore[reportArgumentType]


@dataclass
class Pod:
    """A server and its holder."""

    server: FakeServer = field(default_factory=FakeServer)
    shelf: Shelf = field(default_factory=lambda: Shelf(ORDER, lambda _: None))
    served: bool = False
    """Whether the label stable has answered since the server started."""

    def look(self, holding: Holding) -> bool:
        orders = {version: ORDER.of(release, "") for version, release in holding.versions().items()}
        settled = Holder(self.server, self.shelf).look(orders, holding.labels())
        self.check()
        return settled

    def step(self) -> None:
        self.server.step()
        self.check()

    def restart(self) -> None:
        self.server, self.served = FakeServer(self.server.broken), False

    def check(self) -> None:
        """Requests for the label stable do not fail once they were answered."""
        answers = self.server.stable() is not None
        assert answers or not self.served, f"stable leads to {self.server.labels} of {self.server.known}"
        self.served = answers

    def settle(self, holding: Holding, moments: int = 40) -> bool:
        for _ in range(moments):
            if self.look(holding):
                return True
            self.step()
        return False


def holding(stable: str, canary: str | None = None, *, beside: str | None = None) -> Holding:
    return Holding(stable=stable, canary=canary, releases=dict.fromkeys(filter(None, (stable, canary, beside)), ""))


records = st.builds(
    lambda stable, canary, beside: holding(stable, canary if canary != stable else None, beside=beside),
    st.sampled_from([A, B]),
    st.sampled_from([None, A, B, C]),
    st.sampled_from([None, A, B]),
)
courses = st.lists(st.tuples(records, st.integers(0, 6), st.booleans()), min_size=1, max_size=6)


@settings(max_examples=300, deadline=None)
@given(courses, st.booleans(), st.booleans())
def test_over_every_course_what_serves_goes_on_and_the_last_record_comes_true(
    course: list[tuple[Holding, int, bool]], breaks: bool, refuses: bool
) -> None:
    pod = Pod(FakeServer({release_version(C)} if breaks else ()))
    pod.shelf.refused = {release_version(C)} if refuses else set()
    for record, moments, restarts in course:
        if restarts:
            pod.restart()
        for _ in range(moments):
            pod.look(record)
            pod.step()
    last = course[-1][0]
    lacking = C in last.releases and (breaks or refuses)
    assert pod.settle(last) == (not lacking)
    assert pod.server.stable() == release_version(last.stable)
    if not lacking:
        assert {version for version, (state, _) in pod.server.known.items() if state != "END"} == set(last.versions())
        assert pod.server.labels == last.labels()
        assert pod.shelf.files == set(last.versions())


def test_where_nothing_serves_the_stable_version_comes_first_and_alone() -> None:
    pod = Pod()
    pod.look(holding(A, B))
    pod.look(holding(A, B))
    assert pod.server.aspired == [release_version(A)]
    assert pod.settle(holding(A, B))


def test_a_version_that_a_pod_lacks_gets_no_label_and_the_old_one_stays() -> None:
    pod = Pod()
    pod.settle(holding(A))
    pod.shelf.refused = {release_version(B)}
    assert not pod.settle(holding(B, beside=A))
    assert pod.server.labels == {"stable": release_version(A)}
    assert not pod.settle(holding(B))
    assert pod.server.stable() == release_version(A)


def test_settled_means_no_more_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    pod = Pod()
    assert pod.settle(holding(A, B))

    def refuse(*_: object) -> None:
        raise AssertionError("nothing had to change")

    monkeypatch.setattr(pod.server, "reload", refuse)
    assert pod.look(holding(A, B))


def test_a_refusal_is_the_callers_to_hear(monkeypatch: pytest.MonkeyPatch) -> None:
    pod = Pod()

    def refuse(*_: object) -> None:
        raise DualError("busy")

    monkeypatch.setattr(pod.server, "reload", refuse)
    with pytest.raises(DualError, match="busy"):
        pod.settle(holding(A))


def test_before_a_version_goes_nobody_is_led_to_it_any_more() -> None:
    pod = Pod()
    pod.settle(holding(A, B))
    pod.look(holding(B))
    # A request may have learnt the version from the label, and not have it yet.
    assert (pod.server.labels, set(pod.server.aspired)) == ({"stable": release_version(B)}, {release_version(A), release_version(B)})
    assert pod.settle(holding(B))
    assert pod.server.aspired == [release_version(B)]
