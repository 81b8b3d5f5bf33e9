"""Metrics that a web service of the operator's is asked for: a number, or a verdict of its own."""

from collections.abc import Mapping
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.errors import DualError
from serving.rollout.analysis.answers import Answer, explain, fetch, redacted, secret_headers
from serving.rollout.analysis.rules import Measurement, Outcome, judged
from serving.rollout.analysis.settings import WebhookMetric
from serving.rollout.analysis.subject import Subject


class _Number(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    value: float | None
    """null: the service has no data."""
    baseline: float | None = None
    text: str = ""


class _Judged(BaseModel):
    model_config = ConfigDict(extra="ignore")

    verdict: Outcome
    text: str = ""


def measure_webhook(metric: WebhookMetric, candidate: Subject | None, stable: Subject | None, *, at: str) -> Measurement:
    """One look at a metric; whatever goes wrong is a measurement too (`error`), whose text names the address (without its query)."""
    if candidate is None:
        return judged(metric.name, None, at=at, no_data="the candidate has no pod")
    try:
        headers = secret_headers(metric.headers)
        text = _ask(metric, _question(metric, candidate, stable), headers)
        if metric.min is None and metric.max is None:
            return _judged(metric, text, at)
        return _bounded(metric, text, at)
    except DualError as error:
        return judged(metric.name, None, at=at, problem=str(error))


def _question(metric: WebhookMetric, candidate: Subject, stable: Subject | None) -> dict[str, Any]:
    return {
        "metric": metric.name,
        "model": candidate.model,
        "candidate": candidate.revision,
        "candidate_pods": list(candidate.pods),
        "stable": stable.revision if stable else None,
        "stable_pods": list(stable.pods) if stable else [],
    }


def _ask(metric: WebhookMetric, question: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    try:
        answer = _post(metric, question, headers)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise _failed(metric, explain(error, metric.timeout)) from None
    if not answer.ok:
        raise _failed(metric, redacted(answer.quoted(), headers.values()))
    return redacted(answer.text, headers.values())


def _post(metric: WebhookMetric, question: Mapping[str, Any], headers: Mapping[str, str]) -> Answer:
    with httpx.Client(headers=dict(headers)) as client:
        return fetch(client, client.build_request("POST", metric.url, json=dict(question)), seconds=metric.timeout)


def _bounded(metric: WebhookMetric, text: str, at: str) -> Measurement:
    try:
        answer = _Number.model_validate_json(text)
    except ValidationError:
        raise _failed(metric, f'did not answer {{"value": number}}: {" ".join(text.split())[:200]}') from None
    no_data = answer.text or f"{_address(metric)} has no data"
    return judged(
        metric.name,
        answer.value,
        at=at,
        low=metric.min,
        high=metric.max,
        baseline=answer.baseline,
        no_data=no_data,
        details=answer.text if answer.value is not None else "",
    )


def _judged(metric: WebhookMetric, text: str, at: str) -> Measurement:
    try:
        answer = _Judged.model_validate_json(text)
    except ValidationError:
        raise _failed(metric, f'did not answer {{"verdict": ...}} with a known outcome: {" ".join(text.split())[:200]}') from None
    said = f"{metric.name}: {_address(metric)} says {answer.verdict}" + (f": {answer.text}" if answer.text else "")
    return Measurement(metric=metric.name, outcome=answer.verdict, text=said[:400], at=at)


def _address(metric: WebhookMetric) -> str:
    # What follows the `?` may be a token.
    return metric.url.partition("?")[0]


def _failed(metric: WebhookMetric, what: str) -> DualError:
    return DualError(what, where=_address(metric), fix=f"Correct the metric {metric.name}, or look at its server")
