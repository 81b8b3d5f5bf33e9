"""Metrics that Prometheus, or whatever speaks its HTTP API, is asked for.

API: https://prometheus.io/docs/prometheus/latest/querying/api/ (instant queries). A query must give one number; no series at all is no
data, several are an error, because nobody could say which one was meant.
"""

import math
from collections.abc import Mapping
from string import Template
from typing import Literal

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.errors import DualError
from serving.rollout.analysis.answers import Answer, explain, fetch, redacted, secret_headers
from serving.rollout.analysis.rules import Measurement, judged
from serving.rollout.analysis.settings import PrometheusMetric
from serving.rollout.analysis.subject import Subject

Sample = tuple[float, str]
"""Time in seconds, and the value as text: NaN and +Inf are no JSON numbers."""


class _Series(BaseModel):
    model_config = ConfigDict(extra="ignore")

    value: Sample


class _Vector(BaseModel):
    resultType: Literal["vector"]
    result: list[_Series]


class _Scalar(BaseModel):
    resultType: Literal["scalar"]
    result: Sample


class _Reply(BaseModel):
    model_config = ConfigDict(extra="ignore")

    status: Literal["success"]
    data: _Vector | _Scalar


def measure_prometheus(metric: PrometheusMetric, candidate: Subject | None, stable: Subject | None, *, at: str) -> Measurement:
    """One look at a metric; whatever goes wrong is a measurement too (`error`), whose text names the address and the query."""
    if candidate is None:
        return judged(metric.name, None, at=at, no_data="the candidate has no pod")
    if candidate.shared and metric.names_pods():
        # Both versions' numbers in one would look like the candidate's.
        return judged(metric.name, None, at=at, no_data="the pods serve both versions, and their metrics don't tell them apart")
    query = filled(metric.query, candidate)
    try:
        headers = secret_headers(metric.headers)
        value = ask(metric, query, headers)
    except DualError as error:
        return judged(metric.name, None, at=at, problem=str(error))
    no_data = f"{metric.address} has no data for {query}"
    baseline = _baseline(metric, query, stable, headers)
    return judged(metric.name, value, at=at, low=metric.min, high=metric.max, baseline=baseline, no_data=no_data)


def filled(query: str, subject: Subject) -> str:
    """The query about one revision; a `$` that stands for nothing of ours, as in a regular expression, stays."""
    return Template(query).safe_substitute(revision=subject.revision, model=subject.model, pods=_quoted(subject.pattern()))


def ask(metric: PrometheusMetric, query: str, headers: Mapping[str, str]) -> float:
    """The number that a query gives now, NaN if it gives none; `DualError` names address and query, and no header."""
    try:
        # Redirects are not followed: the headers are meant for this address.
        with httpx.Client(headers=dict(headers)) as client:
            answer = _post_or_get(client, f"{metric.address.rstrip('/')}/api/v1/query", query, metric.timeout)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise _failed(metric, query, explain(error, metric.timeout)) from None
    if not answer.ok:
        raise _failed(metric, query, redacted(answer.quoted(), headers.values()))
    return _number(metric, query, redacted(answer.text, headers.values()))


def _post_or_get(client: httpx.Client, url: str, query: str, seconds: float) -> Answer:
    # A list of many pods makes a query too long for a URL; some proxies let only GET through (client_golang does the same).
    answer = fetch(client, client.build_request("POST", url, data={"query": query}), seconds=seconds)
    if answer.status in (405, 501):
        return fetch(client, client.build_request("GET", url, params={"query": query}), seconds=seconds)
    return answer


def _number(metric: PrometheusMetric, query: str, text: str) -> float:
    try:
        data = _Reply.model_validate_json(text).data
        samples = [data.result] if isinstance(data, _Scalar) else [series.value for series in data.result]
        numbers = [float(value) for _, value in samples]
    except (ValidationError, ValueError):
        raise _failed(metric, query, f"gave neither a vector nor a scalar: {' '.join(text.split())[:200]}") from None
    if len(numbers) > 1:
        raise _failed(metric, query, f"gave {len(numbers)} series, and one number is needed (aggregate, for example with sum(...))")
    return numbers[0] if numbers else math.nan


def _baseline(metric: PrometheusMetric, query: str, stable: Subject | None, headers: Mapping[str, str]) -> float | None:
    same = stable is None or filled(metric.query, stable) == query
    if stable is None or same:
        return None
    try:
        return ask(metric, filled(metric.query, stable), headers)
    except DualError:
        # It is only shown; what decides is the candidate's.
        return None


def _failed(metric: PrometheusMetric, query: str, what: str) -> DualError:
    return DualError(what, where=f"{metric.address}, query {query}", fix=f"Correct the metric {metric.name}, or look at its server")


def _quoted(pattern: str) -> str:
    """As it stands inside double quotes in PromQL."""
    return pattern.replace("\\", "\\\\")
