"""A store at gs:// with releases, an endpoint that serves them, and rollouts there that take no time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from components.core.channel import read_channel
from components.core.release import Release
from components.core.stores import Store
from components.core.stores.local import LocalStore
from serving.rollout.endpoint import actions
from serving.rollout.endpoint.settings import EndpointSettings
from serving.rollout.endpoint.state import Book, EndpointRollout
from tests.release_pieces import LABELS, GoldenImage, make_release
from tests.vertex.fake_endpoints import Behaviour, FakeEndpoints

IMAGE = "europe-west4-docker.pkg.dev/my-project/dual/tensorflow-serving:2.19.1"
GOLDEN = [
    GoldenImage(f"{n}.jpg", f"picture {n}".encode(), LABELS[n % 3], [0.9 if k == n % 3 else 0.05 for k in range(3)]) for n in range(6)
]
ANALYSIS: dict[str, Any] = {
    "interval": 0.01,
    "count": 2,
    "smoke": {"requests": 6, "concurrency": 3, "timeout": 8.0},
    "latency_p99_ms": {"max": 6000.0},
    "latency_p99_vs_stable": {"slack_ms": 6000.0},
}
PLAN: dict[str, Any] = {
    "steps": [{"weight": 20}, {"weight": 50}],
    "analysis": ANALYSIS,
    "scale_down_delay": 0.0,
    "poll_seconds": 0.01,
    "progress_deadline": 20.0,
    "publish_within": 20.0,
}


def settings_of(**changes: Any) -> EndpointSettings:
    """Settings for quick rollouts; `plan` and the place's keys can be changed."""
    plan = {**PLAN, **changes.pop("plan", {})}
    place = {"container": {"image": IMAGE}, "region": "europe-west4", "patience": 3.0}
    return EndpointSettings.model_validate({**place, "plan": plan, **changes})


def right() -> Behaviour:
    """Answers as the golden images say."""
    return Behaviour({each.image: (each.label, each.probabilities) for each in GOLDEN})


def wrong() -> Behaviour:
    """Answers each image as another."""
    return Behaviour({each.image: (LABELS[(number + 1) % 3], [0.1, 0.1, 0.8]) for number, each in enumerate(GOLDEN)})


class Bucket(LocalStore):
    """A folder that calls itself a bucket: the same promises, without the time that a fake Cloud Storage takes."""

    def __init__(self, root: Path) -> None:
        """Objects lie below `root`."""
        super().__init__(root)
        self.uri = "gs://models/dual"


@dataclass
class EndpointSite:
    """One store and one project."""

    fake: FakeEndpoints
    store: Store
    root: Path
    releases: list[Release] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def release(self) -> str:
        """One more release, which is served well."""
        made = make_release(self.store, self.root, len(self.releases), golden=GOLDEN)
        self.releases.append(made)
        self.fake.behaviours[made.id] = right()
        return made.id

    def ship(self, release: str, *, run: str = "run", **changes: Any) -> EndpointRollout:
        """Roll out and publish."""
        return actions.ship(self.store, release, "classifier", settings_of(**changes), run_id=run, say=self.said.append)

    def roll_out(self, release: str, *, run: str = "run", **changes: Any) -> EndpointRollout:
        """Roll out up to the publication."""
        return actions.roll_out(self.store, release, "classifier", settings_of(**changes), run_id=run, say=self.said.append)

    def undo(self) -> EndpointRollout | None:
        """Both halves back."""
        return actions.undo(self.store, run_id="undo", reason="a test", say=self.said.append)

    def state(self) -> EndpointRollout:
        """The state now."""
        found = Book(self.store).read()
        assert found is not None
        return found

    def channel(self) -> str:
        """The release that is published; empty before the first."""
        found = read_channel(self.store)
        return found[0].release if found else ""

    def is_settled(self, release: str) -> bool:
        """Whether a release alone is deployed, has all traffic, and is published."""
        return (self.fake.shares(), self.fake.deployed(), self.channel()) == ({release: 100}, [release], release)


def make_site(fake: FakeEndpoints, root: Path) -> EndpointSite:
    """A site without releases."""
    return EndpointSite(fake, Bucket(root / "bucket"), root)


class Ended(BaseException):
    """The process is gone."""


def stop_when(site: EndpointSite, word: str, act: Callable[[], object]) -> None:
    """End the process as soon as it says that."""

    class Said(list[str]):
        def append(self, text: str) -> None:
            super().append(text)
            if word in text and text.startswith("paused"):
                raise Ended

    site.said = Said()
    try:
        act()
    finally:
        site.said = []


def shares_seen(site: EndpointSite) -> Callable[[], list[dict[str, int]]]:
    """What the split was, each time that it changed from now on."""
    seen: list[dict[str, int]] = [site.fake.shares()]
    site.fake.watch.append(lambda _: seen.append(site.fake.shares()))
    return lambda: [each for before, each in pairwise(seen) if each != before]
