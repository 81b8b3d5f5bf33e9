"""Replayed traffic: golden images sent to the candidate and to the running version at a small constant load, and what came back."""

import math
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, cycle, islice
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.errors import DataError, DualError
from components.core.gate import Reason, at_most
from components.core.release import Release
from components.core.stores import Store, join
from components.roll_out_cloud.settings import RollOutCloudSettings
from serving.rollout.servers import Server

_FIX = "Look with `dual release verify`; run the pipeline again to make the release anew"
_TOLERANCE = 1e-3


class _Expected(BaseModel):
    model_config = ConfigDict(extra="ignore")

    label: str
    probabilities: list[float]


class _Image(BaseModel):
    model_config = ConfigDict(extra="ignore")

    file: str
    label: str = ""
    cloud: _Expected


class _Golden(BaseModel):
    model_config = ConfigDict(extra="ignore")

    tolerances: dict[str, float] = {}
    images: list[_Image]


@dataclass(frozen=True)
class Query:
    """A golden image and the cloud model's expected answer."""

    name: str
    image: bytes
    label: str
    probabilities: list[float]
    tolerance: float
    truth: str = ""
    """The true class, which the model may have missed; empty if it is not known."""

    def agrees(self, answer: dict[str, Any]) -> bool:
        """Whether an answer has the expected label, and every probability within the tolerance."""
        found = answer.get("probabilities", [])
        close = len(found) == len(self.probabilities)
        close = close and all(abs(a - b) <= self.tolerance for a, b in zip(found, self.probabilities, strict=True))
        return close and answer.get("label") == self.label


@dataclass
class Traffic:
    """What one version made of its requests."""

    sent: int = 0
    errors: list[str] = field(default_factory=list)
    disagreements: list[str] = field(default_factory=list)
    """Golden images whose answer was another one; only counted where answers are expected."""
    samples: list[tuple[float, float]] = field(default_factory=list)
    """(seconds since the start, latency in milliseconds) of each answered request."""

    def latency(self, quantile: float) -> float:
        """The nearest-rank quantile of the latencies in milliseconds; NaN without an answer."""
        values = sorted(latency for _, latency in self.samples)
        return values[min(len(values) - 1, math.ceil(quantile * len(values)) - 1)] if values else math.nan

    def merge(self, other: "Traffic") -> None:
        """Add another server's traffic."""
        self.sent += other.sent
        self.errors += other.errors
        self.disagreements += other.disagreements
        self.samples += other.samples


def golden_queries(store: Store, release: Release) -> list[Query]:
    """The release's golden images with the cloud model's answers; `DataError` if they are missing or malformed."""
    folder = join(release.folder(), "golden")
    try:
        golden = _Golden.model_validate_json(store.get(join(folder, "golden.json")).data)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        raise DataError(what, where=f"{store.uri}/{folder}/golden.json", fix=_FIX) from None
    if not golden.images:
        raise DataError("there is no golden image, so nothing can be checked", where=f"{store.uri}/{folder}/golden.json", fix=_FIX)
    tolerance = golden.tolerances.get("cloud", _TOLERANCE)
    return [
        Query(each.file, store.get(join(folder, each.file)).data, each.cloud.label, each.cloud.probabilities, tolerance, each.label)
        for each in golden.images
    ]


def replay(server: Server, versions: Sequence[int], queries: Sequence[Query], *, requests: int, concurrency: int) -> dict[int, Traffic]:
    """Send `requests` golden images to each version, taking turns so that all see the same load; returns what came back by version.

    Answers are compared with the golden ones for the first version only: the others may rightly answer differently.
    """
    traffic = {version: Traffic() for version in versions}
    turns: Iterable[tuple[int, Query]] = chain.from_iterable(((v, q) for v in versions) for q in islice(cycle(queries), requests))
    for version in versions:
        # The first request of a version pays for tracing and empty caches; it is no sample.
        _ignore_first(server, version, queries[0])
    start = time.monotonic()
    with ThreadPoolExecutor(concurrency) as pool:
        for version, query, outcome, at, latency in pool.map(lambda turn: _ask(server, turn[0], turn[1], start), turns):
            _count(traffic[version], query, outcome, (at, latency), compare=version == versions[0])
    return traffic


def _ignore_first(server: Server, version: int, query: Query) -> None:
    try:
        server.predict(version, query.image)
    except DualError:
        # It will be counted when it fails again.
        return


def _ask(server: Server, version: int, query: Query, start: float) -> tuple[int, Query, dict[str, Any] | DualError, float, float]:
    began = time.monotonic()
    try:
        outcome: dict[str, Any] | DualError = server.predict(version, query.image)
    except DualError as error:
        outcome = error
    return version, query, outcome, began - start, 1000 * (time.monotonic() - began)


def _count(traffic: Traffic, query: Query, outcome: dict[str, Any] | DualError, sample: tuple[float, float], *, compare: bool) -> None:
    traffic.sent += 1
    if isinstance(outcome, DualError):
        traffic.errors.append(f"{query.name}: {outcome}")
        return
    traffic.samples.append(sample)
    if compare and not query.agrees(outcome):
        traffic.disagreements.append(f"{query.name}: answered {outcome.get('label')}, expected {query.label}")


def judge_traffic(candidate: Traffic, stable: Traffic | None, bounds: RollOutCloudSettings) -> list[Reason]:
    """The checks of a candidate's traffic; no traffic at all is a failure, never a success."""
    if not candidate.sent:
        return [Reason(metric="requests", passed=False, text="no request was sent to the candidate")]
    rate = len(candidate.errors) / candidate.sent
    checks = [_explain(at_most("error_rate", rate, bounds.max_error_rate), candidate.errors)]
    agreement = 1 - len(candidate.disagreements) / max(1, len(candidate.samples)) if candidate.samples else math.nan
    checks.append(_explain(_at_least("golden_agreement", agreement, bounds.min_agreement), candidate.disagreements))
    checks.append(at_most("latency_p99", candidate.latency(0.99), bounds.max_p99_ms, " ms"))
    if stable is not None and stable.samples:
        bound = max(stable.latency(0.99) * bounds.max_p99_ratio, stable.latency(0.99) + bounds.p99_slack_ms)
        checks.append(at_most("latency_p99_vs_stable", candidate.latency(0.99), bound, " ms"))
    return checks


def _at_least(metric: str, value: float, bound: float) -> Reason:
    passed = math.isfinite(value) and value >= bound
    text = f"{metric} {value:.4g} (must be >= {bound:g})"
    return Reason(metric=metric, passed=passed, value=value if math.isfinite(value) else None, bound=bound, text=text)


def _explain(check: Reason, details: Sequence[str]) -> Reason:
    if check.passed or not details:
        return check
    return check.model_copy(update={"text": f"{check.text}; for example {details[0]}"})
