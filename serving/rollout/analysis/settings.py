"""Settings of a rollout's analysis: what is measured how often, within which bounds, and how many measurements may go wrong.

Words, meaning and defaults of `interval`, `count`, `initial_delay`, the three limits and `dry_run` are Argo Rollouts'
(pkg/apis/rollouts/v1alpha1/analysis_types.go, https://argo-rollouts.readthedocs.io/en/stable/features/analysis/).
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from components.core.settings import Section

_DAY = 86_400.0
_ENVIRONMENT = "HTTP header → name of the environment variable that holds its whole value; values are never printed."


@dataclass(frozen=True)
class Limits:
    """How many measurements of one metric are taken, and how many of them may go wrong."""

    count: int
    failure_limit: int
    inconclusive_limit: int
    consecutive_error_limit: int


class Metric(Section):
    """What every metric has: limits of its own, where they are set."""

    failure_limit: int | None = Field(default=None, ge=0, description="Instead of the analysis' failure_limit.")
    inconclusive_limit: int | None = Field(default=None, ge=0, description="Instead of the analysis' inconclusive_limit.")
    consecutive_error_limit: int | None = Field(default=None, ge=0, description="Instead of the analysis' consecutive_error_limit.")

    def is_on(self) -> bool:
        """Whether a bound is set; a metric without one is not measured."""
        return True


class ErrorRate(Metric):
    """Share of requests that failed by the server's fault."""

    max: float | None = Field(default=0.0, ge=0, le=1, description="Share of requests that may fail by the server's fault; null: off.")

    def is_on(self) -> bool:
        """Whether the bound is set."""
        return self.max is not None


class LatencyP99(Metric):
    """The 99th percentile of the latency that the servers measured, in milliseconds."""

    max: float | None = Field(default=2000.0, gt=0, description="The candidate's p99 may be at most so many milliseconds; null: off.")

    def is_on(self) -> bool:
        """Whether the bound is set."""
        return self.max is not None


class LatencyVsStable(Metric):
    """The candidate's p99 latency beside the stable version's in the same window."""

    ratio: float | None = Field(
        default=3.0, gt=0, description="The candidate's p99 may be at most so many times the stable one's; null: off."
    )
    slack_ms: float = Field(default=50.0, ge=0, description="A difference to the stable version below this is noise, in milliseconds.")

    def is_on(self) -> bool:
        """Whether the bound is set."""
        return self.ratio is not None

    def bound(self, stable_ms: float) -> float:
        """What the candidate's p99 may be beside the stable version's, both in milliseconds."""
        return max(stable_ms * (self.ratio or 0.0), stable_ms + self.slack_ms)


class Agreement(Metric):
    """Share of images with the same answer."""

    min: float | None = Field(default=None, ge=0, le=1, description="Share of images that must be answered alike; null: off.")

    def is_on(self) -> bool:
        """Whether the bound is set."""
        return self.min is not None


class GoldenAgreement(Agreement):
    """Share of golden images that are answered as the release says."""

    min: float | None = Field(default=1.0, ge=0, le=1, description="Share of golden answers (label, probabilities) to meet; null: off.")


class SmokeAccuracy(Metric):
    """Accuracy on a labelled smoke set; off unless a bound is set."""

    min: float | None = Field(default=None, ge=0, le=1, description="The candidate's accuracy must be at least this; null: no such bound.")
    max_drop: float | None = Field(
        default=None, ge=0, le=1, description="At most this much below the stable version's; null: no such bound."
    )
    folder: str = Field(default="", description="Folder with a folder of images per class; empty: the golden images, true labels.")
    images: int = Field(default=60, ge=1, le=10_000, description="At most so many images in a round, evenly from the classes.")

    def is_on(self) -> bool:
        """Whether a bound is set."""
        return self.min is not None or self.max_drop is not None


class Bounded(Metric):
    """A number from outside, and where it must lie."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$", description="Name of the metric in verdicts and in `dry_run`.")
    min: float | None = Field(default=None, allow_inf_nan=False, description="The value must be at least this.")
    max: float | None = Field(default=None, allow_inf_nan=False, description="The value must be at most this.")
    timeout: float = Field(default=10.0, gt=0, le=300, description="Seconds within which the whole answer must be there.")
    headers: dict[str, str] = Field(default={}, description=_ENVIRONMENT)

    @model_validator(mode="after")
    def _satisfiable(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"{self.name}: min {self.min:g} is above max {self.max:g}: nothing could pass")
        return self


class PrometheusMetric(Bounded):
    """The one number that a PromQL query gives."""

    address: str = Field(description="Base URL of Prometheus, for example http://prometheus.monitoring:9090.")
    query: str = Field(
        min_length=1,
        description="PromQL that gives one number. $revision, $pods (a regular expression of the pods' names) and $model are filled in; "
        "a query that has $revision or $pods is asked for the stable version too, for comparison.",
    )

    def names_pods(self) -> bool:
        """Whether the query is about certain pods, and not about the whole."""
        return re.search(r"\$(\{)?(revision|pods)\b", self.query) is not None

    @field_validator("address")
    @classmethod
    def _is_url(cls, address: str) -> str:
        return checked_url(address)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError(f"{self.name} has no bound: set min or max")
        return self


class WebhookMetric(Bounded):
    """A number, or a verdict, that a web service of your own gives.

    With `min` or `max` it must answer `{"value": 0.93}`, without both `{"verdict": "successful"}` (or failed, inconclusive, error); a
    `text` in the answer is quoted.
    """

    url: str = Field(description="Where to POST {metric, model, candidate, candidate_pods, stable, stable_pods} as JSON.")

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        return checked_url(url)


class SmokeSettings(Section):
    """The requests that the analysis itself sends, so that there is data even without live traffic."""

    requests: int = Field(default=10, ge=0, le=10_000, description="Golden images sent to every pod in each round; 0: none.")
    most: int = Field(default=400, ge=1, le=100_000, description="At most so many in a round to a version; every pod gets at least one.")
    concurrency: int = Field(default=4, ge=1, le=64, description="Requests (and scrapes) in flight at once.")
    timeout: float = Field(default=10.0, gt=0, le=300, description="Seconds within which a pod must answer.")

    def per_pod(self, pods: int) -> int:
        """How many requests each of so many pods gets in one round."""
        return min(self.requests, max(1, self.most // max(1, pods)))


class AnalysisSettings(Section):
    """How a candidate is measured beside the stable version, and what decides."""

    interval: float = Field(default=10.0, gt=0, le=_DAY, description="Seconds between two measurements.")
    count: int = Field(default=3, ge=0, description="Measurements per step, errors not counted; 0: until the step's pause is over.")
    initial_delay: float = Field(default=0.0, ge=0, le=_DAY, description="Seconds from the step's begin to the first measurement.")
    failure_limit: int = Field(default=0, ge=0, description="Failed measurements of a metric allowed; one more fails the analysis.")
    inconclusive_limit: int = Field(default=0, ge=0, description="Inconclusive measurements of a metric allowed; one more pauses.")
    consecutive_error_limit: int = Field(default=4, ge=0, description="Errors in a row, such as timeouts, that a metric may have.")
    min_requests: int = Field(default=1, ge=1, description="Fewer requests than this in a window are no data: inconclusive.")
    dry_run: list[str] = Field(default=[], description="Metrics that are measured and shown but never decide.")
    smoke: SmokeSettings = Field(default=SmokeSettings(), description="Requests that the analysis sends itself.")
    error_rate: ErrorRate = Field(default=ErrorRate(), description="Failed requests: the servers' own count, and the smoke requests.")
    latency_p99_ms: LatencyP99 = Field(default=LatencyP99(), description="The servers' own latency of all requests in the window.")
    latency_p99_vs_stable: LatencyVsStable = Field(default=LatencyVsStable(), description="The same beside the stable version's.")
    golden_agreement: GoldenAgreement = Field(default=GoldenAgreement(), description="Golden images that are answered as the release says.")
    agreement_with_stable: Agreement = Field(
        default=Agreement(), description="Golden images with the same label as by stable; off by default."
    )
    smoke_accuracy: SmokeAccuracy = Field(default=SmokeAccuracy(), description="Accuracy on labelled images; off by default.")
    prometheus: list[PrometheusMetric] = Field(default=[], description="Metrics that Prometheus is asked for.")
    webhooks: list[WebhookMetric] = Field(default=[], description="Metrics that a web service is asked for.")

    @model_validator(mode="after")
    def _can_decide(self) -> Self:
        _check_names(self)
        if not set(self.metrics()) - set(self.dry_run):
            raise ValueError("no metric decides: switch one on, or take one out of dry_run")
        for name in self.metrics():
            _check_limits(name, self.limits(name))
        return self

    def metrics(self) -> dict[str, Metric]:
        """Every metric that is on by name, in the order in which they are shown."""
        return {name: metric for name, metric in _all_metrics(self) if metric.is_on()}

    def limits(self, metric: str) -> Limits:
        """The limits of a metric that is on: its own, or the analysis'; `KeyError` if there is none of the name."""
        own = self.metrics()[metric]
        return Limits(
            count=self.count,
            failure_limit=_own(own.failure_limit, self.failure_limit),
            inconclusive_limit=_own(own.inconclusive_limit, self.inconclusive_limit),
            consecutive_error_limit=_own(own.consecutive_error_limit, self.consecutive_error_limit),
        )

    def comparisons(self) -> set[str]:
        """The metrics that mean nothing without a stable version."""
        only_drop = {"smoke_accuracy"} if self.smoke_accuracy.min is None else set()
        return {"latency_p99_vs_stable", "agreement_with_stable"} | only_drop


def checked_url(url: str) -> str:
    """The URL of a service; `ValueError` unless it is http(s) with a host and without a password, which belongs in a header."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is no http:// or https:// URL")
    if parts.username is not None or parts.password is not None:
        # Such an URL would be printed with every error.
        raise ValueError("must not hold a user or a password: name an environment variable in headers")
    return url


def _all_metrics(settings: AnalysisSettings) -> list[tuple[str, Metric]]:
    built_in: list[tuple[str, Metric]] = [
        ("error_rate", settings.error_rate),
        ("latency_p99_ms", settings.latency_p99_ms),
        ("latency_p99_vs_stable", settings.latency_p99_vs_stable),
        ("golden_agreement", settings.golden_agreement),
        ("agreement_with_stable", settings.agreement_with_stable),
        ("smoke_accuracy", settings.smoke_accuracy),
    ]
    return [*built_in, *((each.name, each) for each in [*settings.prometheus, *settings.webhooks])]


def _check_names(settings: AnalysisSettings) -> None:
    names = Counter(name for name, _ in _all_metrics(settings))
    if twice := [name for name, times in names.items() if times > 1]:
        raise ValueError(f"the metric name '{twice[0]}' is there twice")
    if unknown := set(settings.dry_run) - set(names):
        raise ValueError(f"dry_run names '{min(unknown)}', and there is no such metric: {', '.join(names)}")


def _check_limits(name: str, limits: Limits) -> None:
    for word, limit in (("failure_limit", limits.failure_limit), ("inconclusive_limit", limits.inconclusive_limit)):
        if 0 < limits.count <= limit:
            raise ValueError(f"{name}: {word} {limit} is not below count {limits.count}: it could never be exceeded")


def _own(own: int | None, general: int) -> int:
    return general if own is None else own
