"""What the servers of a revision counted in a window, from two scrapes of each pod's own TF Serving metrics; needs no Prometheus.

    :tensorflow:serving:request_count{model_name,status}                             every request
    :tensorflow:serving:request_latency_bucket{model_name,API,entrypoint,le}         in microseconds, of requests that were OK

A counter that went down, or is gone, means that the pod's server was restarted: all that it counts now happened in the window (as
PromQL's `increase` takes it). A pod that is new to the analysis is measured from its first scrape on, because its counters may be older
than the analysis; what a pod counted between its last scrape and its end nobody can ask any more.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from components.core.errors import DualError
from serving.rollout.analysis.exposition import Labels, Series, read_page, with_labels
from serving.rollout.analysis.pods import PodAccess, PodTarget

PATH = "/monitoring/prometheus/metrics"
REQUESTS = ":tensorflow:serving:request_count"
LATENCY = ":tensorflow:serving:request_latency_bucket"
OK = "OK"
CLIENT_FAULTS = frozenset(
    {"CANCELLED", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "UNAUTHENTICATED", "OUT_OF_RANGE"}
)
"""Statuses that a client causes, by what it asked or by hanging up: requests, but no errors of the server.

Every other status is the server's fault, one that is unknown here too. OpenTelemetry's semantic conventions for gRPC servers count
UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE and DATA_LOSS; here RESOURCE_EXHAUSTED and ABORTED count too, because the
client of a candidate that is too slow for its share gets no answer, and FAILED_PRECONDITION, because that is what TensorFlow says about a
model whose tables or variables are not initialised. A candidate that refuses good images as INVALID_ARGUMENT is found by the golden images.
"""
_MICROSECONDS = 1000.0

_Key = TypeVar("_Key", str, float)

Page = Mapping[Series, float]
"""One pod's counters for one model."""


@dataclass(frozen=True)
class Window:
    """What servers counted between two scrapes."""

    requests: Mapping[str, float] = field(default_factory=dict)
    """By status, such as OK or INTERNAL."""
    buckets: Mapping[float, float] = field(default_factory=dict)
    """Upper bound in microseconds (the last is infinite) → requests with at most this latency."""
    restarted: Sequence[str] = ()
    """Pods whose server was restarted in the window."""

    def total(self) -> float:
        """All requests."""
        return sum(self.requests.values())

    def errors(self) -> dict[str, float]:
        """Requests that failed by the server's fault, by status."""
        return {status: n for status, n in self.requests.items() if n and status != OK and status not in CLIENT_FAULTS}

    def error_rate(self) -> float:
        """Share of requests that failed by the server's fault; NaN without requests."""
        return sum(self.errors().values()) / self.total() if self.total() else math.nan

    def latency_ms(self, quantile: float) -> float:
        """A quantile of the latency of answered requests in milliseconds; NaN without any."""
        return bucket_quantile(quantile, self.buckets) / _MICROSECONDS


def merged(windows: Iterable[Window]) -> Window:
    """The window of several servers together; they must have the same buckets, as servers of one revision do."""
    requests: dict[str, float] = defaultdict(float)
    buckets: dict[float, float] = defaultdict(float)
    restarted: list[str] = []
    for window in windows:
        _add(requests, window.requests.items())
        _add(buckets, window.buckets.items())
        restarted += window.restarted
    return Window(dict(requests), dict(buckets), restarted)


def read_counters(text: str, model: str, *, where: str = "") -> dict[Series, float]:
    """The counters of one model on a server's page; `DualError` if the page is malformed."""
    page = with_labels(read_page(text, {REQUESTS, LATENCY}, where=where), model_name=model)
    if any(name == LATENCY and math.isnan(_bound(labels)) for name, labels in page):
        raise DualError("has a latency bucket without a bound", where=where, fix="Is it TF Serving that answers there?")
    return page


def scrape(access: PodAccess, target: PodTarget, model: str) -> Page:
    """A pod's counters now; `UnreachableError` or another `DualError` if they can't be had."""
    try:
        text = access.get(PATH)
    except DualError as error:
        if "answered 404" in str(error):
            raise DualError("has no metrics", where=str(target), fix="Start TF Serving with --monitoring_config_file") from None
        raise
    return read_counters(text, model, where=str(target))


def difference(before: Page, after: Page, pod: str = "") -> Window:
    """What one server counted between two of its pages."""
    restarted = any(after.get(series, 0.0) < value for series, value in before.items())
    grown = {series: value - (0.0 if restarted else before.get(series, 0.0)) for series, value in after.items()}
    requests: dict[str, float] = defaultdict(float)
    buckets: dict[float, float] = defaultdict(float)
    # Over everything that is no dimension of ours, such as the entry point (REST, gRPC).
    _add(requests, ((dict(labels).get("status", ""), value) for (name, labels), value in grown.items() if name == REQUESTS))
    _add(buckets, ((_bound(labels), value) for (name, labels), value in grown.items() if name == LATENCY))
    return Window(dict(requests), dict(buckets), (pod,) if restarted else ())


def _add(sums: dict[_Key, float], amounts: Iterable[tuple[_Key, float]]) -> None:
    for key, amount in amounts:
        sums[key] += amount


def _bound(labels: Labels) -> float:
    try:
        return float(dict(labels).get("le", "nan"))
    except ValueError:
        return math.nan


def bucket_quantile(quantile: float, buckets: Mapping[float, float]) -> float:
    """A quantile (0 < q ≤ 1) by linear interpolation inside its bucket, as PromQL's `histogram_quantile` gives it (promql/quantile.go).

    `buckets` are cumulative: upper bound → observations of at most this. NaN without observations, or without a bucket that ends at
    infinity; in that last bucket the answer is the bound before it. The lowest bucket begins at 0.
    """
    bounds = sorted(buckets)
    if len(bounds) < 2 or bounds[-1] != math.inf:
        return math.nan
    # A page is not read in one instant: a higher bucket may lack what a lower one has counted already.
    counts, highest = [], 0.0
    for bound in bounds:
        highest = max(highest, buckets[bound])
        counts.append(highest)
    if not highest:
        return math.nan
    rank = quantile * highest
    at = next((number for number, count in enumerate(counts[:-1]) if count >= rank), len(bounds) - 1)
    if at == len(bounds) - 1:
        return bounds[-2]
    below, start = (counts[at - 1], bounds[at - 1]) if at else (0.0, 0.0)
    return start + (bounds[at] - start) * ((rank - below) / (counts[at] - below))


class Scraper:
    """Remembers each pod's last scrape; one window ends where the next begins."""

    def __init__(self, model: str) -> None:
        """For one model; no pod is known yet."""
        self._model = model
        self._last: dict[str, Page] = {}

    def begin(self, target: PodTarget, access: PodAccess) -> None:
        """Scrape a pod that is not known yet, so that its window begins now; `DualError` if it can't be."""
        if target.name not in self._last:
            self._last[target.name] = scrape(access, target, self._model)

    def window(self, target: PodTarget, access: PodAccess) -> Window:
        """What a pod counted since its last window; after a `DualError` the next window covers this one too."""
        page = scrape(access, target, self._model)
        before = self._last.get(target.name)
        self._last[target.name] = page
        if before is None:
            raise DualError("could not be measured when the window began", where=str(target), fix="The next measurement can")
        return difference(before, page, target.name)

    def keep(self, targets: Iterable[PodTarget]) -> None:
        """Forget every pod but these."""
        names = {target.name for target in targets}
        self._last = {name: page for name, page in self._last.items() if name in names}
