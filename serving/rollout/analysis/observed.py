"""What one round of the analysis saw of both revisions, and the built-in metrics made of it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from components.core.errors import DualError
from serving.rollout.analysis.rules import Measurement, judged
from serving.rollout.analysis.scrape import Window, merged
from serving.rollout.analysis.settings import AnalysisSettings
from serving.rollout.analysis.smoke import SmokeTraffic, shared_agreement

_NO_STABLE = "there is no stable pod to compare with"
_NO_SMOKE = "no golden image was sent"
_ROUNDING = 1e-9
"""0.90 - 0.88 must not fail a bound of 0.02."""


@dataclass
class Observed:
    """One revision in one round."""

    pods: int = 0
    shared: bool = False
    """Whether its servers answer for the other version too: their counters are both versions' together, so what was sent here has to do."""
    windows: list[Window] = field(default_factory=list)
    unscraped: list[DualError] = field(default_factory=list)
    """Why a pod's counters could not be had."""
    smoke: SmokeTraffic = field(default_factory=SmokeTraffic)
    labelled: SmokeTraffic = field(default_factory=SmokeTraffic)

    def window(self) -> Window:
        """All pods' windows together."""
        return merged(self.windows)

    def unscraped_pods(self) -> str:
        """Which pods could not be scraped, and why; empty if all could."""
        return "; ".join(str(error) for error in self.unscraped)

    def requests(self) -> float:
        """Requests that the error rate rests on."""
        return max(self.window().total(), float(self.smoke.sent))

    def error_rate(self) -> float:
        """The larger of two shares: failures that the servers counted, and smoke requests without an answer; NaN without either.

        A server that dies over a request, or hangs, never counts it; and what live clients send is not among the smoke requests.
        """
        rates = [rate for rate in (self.window().error_rate(), self.smoke.error_rate()) if math.isfinite(rate)]
        return max(rates, default=math.nan)

    def latency_ms(self, quantile: float) -> float:
        """A quantile of the latency of answered requests in milliseconds, as the servers measured it, or as it was seen from here where
        they can't tell; NaN without any.
        """
        return self.smoke.latency(quantile) if self.shared else self.window().latency_ms(quantile)

    def answered(self) -> float:
        """The requests that the latency rests on."""
        return float(len(self.smoke.samples)) if self.shared else self.window().buckets.get(math.inf, 0.0)

    def explained(self) -> str:
        """Of how many requests the error rate is a share, and what failed."""
        window, smoke = self.window(), self.smoke
        statuses = "".join(f", {n:.0f} {status}" for status, n in sorted(window.errors().items()))
        counted = f"{window.total():.0f} requests counted by {len(self.windows)} pods{statuses}"
        parts = [f"{smoke.sent} requests sent to this version" if self.shared else counted]
        if smoke.errors:
            parts.append(f"{len(smoke.errors)} of {smoke.sent} smoke requests failed, first {smoke.errors[0]}")
        if window.restarted:
            parts.append(f"restarted: {', '.join(window.restarted)}")
        return "; ".join(parts)


@dataclass(frozen=True)
class Round:
    """Both revisions at one time."""

    settings: AnalysisSettings
    candidate: Observed
    stable: Observed
    at: str

    def measurements(self) -> Iterator[Measurement]:
        """One of each built-in metric that is on."""
        measures = {
            "error_rate": self._error_rate,
            "latency_p99_ms": self._latency,
            "latency_p99_vs_stable": self._latency_vs_stable,
            "golden_agreement": self._golden_agreement,
            "agreement_with_stable": self._agreement_with_stable,
            "smoke_accuracy": self._accuracy,
        }
        yield from (measures[name]() for name in self.settings.metrics() if name in measures)

    def _error_rate(self) -> Measurement:
        seen, no_data = self.candidate, self._too_few()
        return judged(
            "error_rate",
            math.nan if no_data else seen.error_rate(),
            at=self.at,
            high=self.settings.error_rate.max,
            baseline=self.stable.error_rate(),
            problem=seen.unscraped_pods() or seen.smoke.problem(),
            no_data=no_data,
            details=seen.explained(),
        )

    def _latency(self) -> Measurement:
        return self._judged_latency("latency_p99_ms", self.settings.latency_p99_ms.max, "", "")

    def _latency_vs_stable(self) -> Measurement:
        stable_p99 = self.stable.latency_ms(0.99)
        if math.isfinite(stable_p99):
            return self._judged_latency("latency_p99_vs_stable", self.settings.latency_p99_vs_stable.bound(stable_p99), "", "")
        why = "the stable version answered no request in the window" if self.stable.pods else _NO_STABLE
        return self._judged_latency("latency_p99_vs_stable", None, self.stable.unscraped_pods(), why)

    def _judged_latency(self, metric: str, high: float | None, problem: str, why: str) -> Measurement:
        seen, no_data = self.candidate, why or self._too_few()
        answered = seen.answered()
        return judged(
            metric,
            math.nan if no_data else seen.latency_ms(0.99),
            at=self.at,
            high=high,
            unit=" ms",
            baseline=self.stable.latency_ms(0.99),
            problem=self.candidate.unscraped_pods() or problem,
            no_data=no_data or "no request was answered",
            details=f"p50 {seen.latency_ms(0.5):.4g} ms, {answered:.0f} answers" if answered else "",
        )

    def _too_few(self) -> str:
        requests, needed = self.candidate.requests(), self.settings.min_requests
        return "" if requests >= needed else f"{requests:.0f} requests in the window, at least {needed} are needed"

    def _golden_agreement(self) -> Measurement:
        smoke, low = self.candidate.smoke, self.settings.golden_agreement.min
        return judged(
            "golden_agreement",
            smoke.agreement(),
            at=self.at,
            low=low,
            problem=smoke.problem(),
            no_data=_NO_SMOKE,
            details=smoke.example(),
        )

    def _agreement_with_stable(self) -> Measurement:
        smoke, stable = self.candidate.smoke, self.stable.smoke
        return judged(
            "agreement_with_stable",
            shared_agreement(smoke, stable),
            at=self.at,
            low=self.settings.agreement_with_stable.min,
            problem=smoke.problem() or stable.problem(),
            no_data="no image was answered by both versions" if self.stable.pods else _NO_STABLE,
        )

    def _accuracy(self) -> Measurement:
        seen, stable, bounds = self.candidate.labelled, self.stable.labelled, self.settings.smoke_accuracy
        low, why = bounds.min, "no labelled image was sent"
        accuracy = seen.agreement()
        if bounds.max_drop is not None and stable.sent:
            low = max(low or 0.0, stable.agreement() - bounds.max_drop - _ROUNDING)
        elif low is None:
            # A bound that can't be checked must not look like one that holds.
            accuracy, why = math.nan, "the stable version's accuracy is not known"
        problem = seen.problem() or stable.problem()
        return judged(
            "smoke_accuracy",
            accuracy,
            at=self.at,
            low=low,
            baseline=stable.agreement(),
            problem=problem,
            no_data=why,
            details=seen.example(),
        )
