"""One round after another: smoke traffic, two scrapes of every pod, and what Prometheus and web services say."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from components.core.errors import DualError, UsageError
from serving.rollout.analysis.labelled import LabelledImage, folder_images
from serving.rollout.analysis.observed import Observed, Round
from serving.rollout.analysis.pods import Connect, DirectAccess, PodAccess, PodTarget
from serving.rollout.analysis.prometheus import measure_prometheus
from serving.rollout.analysis.rules import Measurement
from serving.rollout.analysis.scrape import Scraper, Window
from serving.rollout.analysis.settings import AnalysisSettings
from serving.rollout.analysis.smoke import Pods, SmokeTraffic, labelled_traffic, smoke_traffic
from serving.rollout.analysis.subject import subject_of
from serving.rollout.analysis.webhook import measure_webhook
from serving.rollout.state import stamp, utc_now
from serving.rollout.traffic import Query


class Analyst:
    """Measures a candidate beside the stable version; keeps connections and the last scrapes from one round to the next.

    A process that takes a rollout over makes a new one: its first window is then only as long as its smoke traffic.
    """

    last: Round | None = None
    """What the latest round saw, for whoever wants more than the measurements."""

    def __init__(
        self,
        settings: AnalysisSettings,
        queries: Sequence[Query],
        name: str,
        *,
        labelled: Sequence[LabelledImage] = (),
        connect: Connect | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """For the model `name`, with the candidate's golden images; `labelled` is used where `smoke_accuracy.folder` is empty.

        `UsageError` if the smoke accuracy is on and there is no labelled image.
        """
        self._settings, self._queries, self._name, self._now = settings, queries, name, now
        self._labelled = _labelled_images(settings, labelled)
        self._connect = connect or (lambda target: DirectAccess(target, name, timeout=settings.smoke.timeout))
        self._accesses: dict[PodTarget, PodAccess] = {}
        self._scraper = Scraper(name)
        self._sent = 0

    def __enter__(self) -> Self:
        """Nothing to do before the first round."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close every connection."""
        self.close()

    def close(self) -> None:
        """Close every connection; a further round would open them again."""
        for access in self._accesses.values():
            access.close()
        self._accesses = {}

    def measure(self, candidate: Sequence[PodTarget], stable: Sequence[PodTarget]) -> list[Measurement]:
        """One round: a measurement of every metric that is on, in the settings' order.

        Never raises for what a pod or a provider does: that is a measurement with the outcome `error`. `stable` is empty at a first
        deployment; comparisons are then inconclusive, and `verdict(..., compare=False)` leaves them out.
        """
        at = stamp(self._now())
        self._leave_all_but([*candidate, *stable])
        with ThreadPoolExecutor(self._settings.smoke.concurrency) as pool:
            ours, theirs = self._observe(pool, self._pods(candidate), self._pods(stable))
            outside = self._ask_outside(pool, candidate, stable, at)
        self.last = Round(self._settings, ours, theirs, at)
        return [*self.last.measurements(), *outside]

    def _leave_all_but(self, targets: Sequence[PodTarget]) -> None:
        self._scraper.keep(targets)
        for gone in self._accesses.keys() - set(targets):
            self._accesses.pop(gone).close()

    def _pods(self, targets: Sequence[PodTarget]) -> Pods:
        for new in targets:
            if new not in self._accesses:
                self._accesses[new] = self._connect(new)
        return {target: self._accesses[target] for target in targets}

    def _observe(self, pool: ThreadPoolExecutor, candidate: Pods, stable: Pods) -> tuple[Observed, Observed]:
        # A window of no length would see nothing; that of a pod which is known already is open since the last round.
        list(pool.map(self._begin, [*_alone(candidate), *_alone(stable)]))
        smoke, beside = self._smoke(candidate, stable)
        ours, theirs = self._observed(candidate, smoke), self._observed(stable, beside)
        for pods, seen in ((candidate, ours), (stable, theirs)):
            windows = list(pool.map(self._window, _alone(pods)))
            seen.windows = [each for each in windows if isinstance(each, Window)]
            seen.unscraped = [each for each in windows if isinstance(each, DualError)]
        return ours, theirs

    def _begin(self, pod: tuple[PodTarget, PodAccess]) -> None:
        try:
            self._scraper.begin(*pod)
        except DualError:
            # It is told when the window ends.
            return

    def _window(self, pod: tuple[PodTarget, PodAccess]) -> Window | DualError:
        try:
            return self._scraper.window(*pod)
        except DualError as error:
            return error

    def _smoke(self, candidate: Pods, stable: Pods) -> tuple[SmokeTraffic, SmokeTraffic]:
        smoke = self._settings.smoke
        per_pod, first = smoke.per_pod(max(len(candidate), len(stable))), self._sent
        # The next round goes on where this one ends, so that every golden image has its turn.
        self._sent = (first + per_pod) % max(1, len(self._queries))
        return smoke_traffic(candidate, stable, self._queries, per_pod=per_pod, concurrency=smoke.concurrency, first=first)

    def _observed(self, pods: Pods, smoke: SmokeTraffic) -> Observed:
        labelled = labelled_traffic(pods, self._labelled, concurrency=self._settings.smoke.concurrency)
        return Observed(pods=len(pods), shared=any(target.shared for target in pods), smoke=smoke, labelled=labelled)

    def _ask_outside(
        self, pool: ThreadPoolExecutor, candidate: Sequence[PodTarget], stable: Sequence[PodTarget], at: str
    ) -> list[Measurement]:
        ours, theirs = subject_of(self._name, candidate), subject_of(self._name, stable)
        asked = pool.map(lambda metric: measure_prometheus(metric, ours, theirs, at=at), self._settings.prometheus)
        called = pool.map(lambda metric: measure_webhook(metric, ours, theirs, at=at), self._settings.webhooks)
        return [*asked, *called]


def _alone(pods: Pods) -> list[tuple[PodTarget, PodAccess]]:
    """The pods whose counters are one version's."""
    return [(target, access) for target, access in pods.items() if not target.shared]


def _labelled_images(settings: AnalysisSettings, labelled: Iterable[LabelledImage]) -> list[LabelledImage]:
    smoke = settings.smoke_accuracy
    if not smoke.is_on():
        return []
    images = folder_images(Path(smoke.folder), smoke.images) if smoke.folder else list(labelled)
    if not images:
        raise UsageError("there is no labelled image", where="analysis.smoke_accuracy", fix="Set its folder, or switch it off (min: null)")
    return images
