"""Measuring two deployed models through their endpoint: requests go where the split sends them, and each answer says who gave it.

There is no way to ask one deployed model of a shared endpoint alone. So a round goes on until the candidate has given as many answers as
are wanted, or until the most requests are sent; too few answers are inconclusive, never a success. A failed request may not say who failed:
such failures count against the candidate, because the stable model answered without them before.
"""

import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx

from components.core.errors import DualError, UnavailableError
from components.core.vertex.wire import TooSlowError, Wire
from serving.rollout.analysis.labelled import LabelledImage, folder_images, golden_images
from serving.rollout.analysis.observed import Observed, Round
from serving.rollout.analysis.pods import read_prediction
from serving.rollout.analysis.prometheus import measure_prometheus
from serving.rollout.analysis.rules import Measurement
from serving.rollout.analysis.settings import AnalysisSettings
from serving.rollout.analysis.smoke import SmokeTraffic
from serving.rollout.analysis.subject import Subject
from serving.rollout.analysis.webhook import measure_webhook
from serving.rollout.state import stamp, utc_now
from serving.rollout.traffic import Query

_WHO = "x-vertex-ai-deployed-model-id"
_BUSY = 429
Image = Query | LabelledImage


@dataclass(frozen=True)
class Served:
    """One request: who answered, if that is known, and what."""

    image: Image
    deployed: str
    """Empty if no answer says so."""
    outcome: dict[str, Any] | DualError
    at: float
    latency: float
    """Milliseconds from here to the answer."""


@dataclass
class Seen:
    """What one round saw."""

    measurements: list[Measurement]
    answered: dict[str, int] = field(default_factory=dict)
    """Deployed model → answers that it gave, everybody's."""


class EndpointAnalyst:
    """Sends golden and labelled images to an endpoint, and judges by the same rules as on a cluster."""

    def __init__(
        self, wire: Wire, settings: AnalysisSettings, queries: Sequence[Query], name: str, *, now: Callable[[], datetime] = utc_now
    ) -> None:
        """For the model `name`, with the candidate's golden images."""
        self._wire, self._settings, self._queries, self._name, self._now = wire, settings, queries, name, now
        self._labelled = _labelled(settings, queries)
        self._sent = 0

    def measure(self, address: str, candidate: str, stable: str) -> Seen:
        """One round at the endpoint's predict `address`; `stable` is empty where there is nothing to compare with.

        Never raises for what the endpoint answers: that is a measurement.
        """
        at, start = stamp(self._now()), time.monotonic()
        with ThreadPoolExecutor(self._settings.smoke.concurrency) as pool:
            golden = list(self._until_answered(pool, address, self._queries, candidate, start, self._settings.smoke.requests))
            wanted = len(self._labelled)
            labelled = list(self._until_answered(pool, address, self._labelled, candidate, start, wanted)) if wanted else []
        ours = _observed(golden, labelled, candidate, blamed=True)
        theirs = _observed(golden, labelled, stable, blamed=False) if stable else Observed(shared=True)
        found = [*Round(self._settings, ours, theirs, at).measurements(), *self._outside(candidate, stable, at)]
        return Seen(found, dict(Counter(each.deployed for each in [*golden, *labelled] if each.deployed)))

    def _until_answered(
        self, pool: ThreadPoolExecutor, address: str, images: Sequence[Image], candidate: str, start: float, wanted: int
    ) -> Iterator[Served]:
        """Requests in turn, until the candidate (or nobody who says so) has had so many, or the most are sent."""
        turns, sent, had = islice(cycle(images), self._sent % max(1, len(images)), None), 0, 0
        while images and had < wanted and sent < self._settings.smoke.most:
            batch = list(islice(turns, min(self._settings.smoke.concurrency, self._settings.smoke.most - sent)))
            for served in pool.map(lambda image: self._ask(address, image, start), batch):
                had += served.deployed in (candidate, "")
                yield served
            sent += len(batch)
        self._sent += sent

    def _ask(self, address: str, image: Image, start: float) -> Served:
        began = time.monotonic()
        deployed, outcome = "", DualError("never asked")
        try:
            deployed, outcome = self._answer(address, image)
        except DualError as error:
            outcome = error
        return Served(image, deployed, outcome, began - start, 1000 * (time.monotonic() - began))

    def _answer(self, address: str, image: Image) -> tuple[str, dict[str, Any] | DualError]:
        body = {"instances": [{"b64": b64encode(image.image).decode()}]}
        response = self._post(address, body)
        who = response.headers.get(_WHO, "")
        if response.status_code != httpx.codes.OK:
            return who, _failed(address, response)
        try:
            who = str(response.json().get("deployedModelId", "")) or who
            return who, read_prediction(response.text, where=address)
        except (ValueError, AttributeError):
            return who, DualError(f"answered no JSON: {response.text[:200]}", where=address, fix="See the container's log")
        except DualError as error:
            return who, error

    def _post(self, address: str, body: dict[str, Any]) -> httpx.Response:
        seconds = self._settings.smoke.timeout
        try:
            return self._wire.send("POST", address, body, seconds=seconds)
        except TooSlowError:
            # The service was reached; who was to answer did not.
            raise DualError(f"no answer within {seconds:g} s", where=address, fix="See the container's log") from None

    def _outside(self, candidate: str, stable: str, at: str) -> list[Measurement]:
        """Prometheus and webhooks are asked about deployed models by their ids: $revision and $pods."""
        ours = Subject(self._name, candidate, [candidate])
        theirs = Subject(self._name, stable, [stable]) if stable else None
        asked = [measure_prometheus(metric, ours, theirs, at=at) for metric in self._settings.prometheus]
        return [*asked, *(measure_webhook(metric, ours, theirs, at=at) for metric in self._settings.webhooks)]


def _failed(address: str, response: httpx.Response) -> DualError:
    said = " ".join(response.text.split())[:200]
    if response.status_code == _BUSY:
        # The endpoint's own limit, or the project's: it says nothing about either version.
        return UnavailableError(f"429, too many requests ({said})", where=address, fix="Lower smoke.concurrency, or raise the quota")
    return DualError(f"answered {response.status_code}: {said}", where=address, fix="See the container's log")


def _observed(golden: Sequence[Served], labelled: Sequence[Served], deployed: str, *, blamed: bool) -> Observed:
    """What one deployed model made of its requests; with `blamed` those that nobody answers for are counted here."""
    traffic = []
    for part in (golden, labelled):
        seen = SmokeTraffic()
        for served in part:
            if served.deployed == deployed or (blamed and not served.deployed):
                _count(seen, served, compare=blamed or part is labelled)
        traffic.append(seen)
    # `shared`: what the endpoint's containers count can't be had, so what was sent here has to do.
    return Observed(pods=1, shared=True, smoke=traffic[0], labelled=traffic[1])


def _count(seen: SmokeTraffic, served: Served, *, compare: bool) -> None:
    outcome, image = served.outcome, served.image
    if isinstance(outcome, UnavailableError) and not served.deployed:
        seen.unreachable["endpoint"] = str(outcome)
        return
    seen.sent += 1
    if isinstance(outcome, DualError):
        unknown = "" if served.deployed else " (no answer says which version failed)"
        seen.errors.append(f"{image.name}: {outcome}{unknown}")
        return
    seen.samples.append((served.at, served.latency))
    label = str(outcome.get("label"))
    seen.labels[image.name] = label
    agrees = image.agrees(outcome) if isinstance(image, Query) else label == image.label
    if compare and not agrees:
        how = " with other probabilities" if label == image.label else ""
        seen.disagreements.append(f"{image.name}: answered {label}{how}, expected {image.label}")


def _labelled(settings: AnalysisSettings, queries: Sequence[Query]) -> list[LabelledImage]:
    smoke = settings.smoke_accuracy
    if not smoke.is_on():
        return []
    return folder_images(Path(smoke.folder), smoke.images) if smoke.folder else golden_images(queries)


def predict_address(endpoint: dict[str, Any], wire: Wire) -> str:
    """Where the endpoint's predictions are asked for: a dedicated one answers at its own host only."""
    host = f"https://{dns}" if (dns := endpoint.get("dedicatedEndpointDns")) and not wire.overridden else wire.endpoint
    return f"{host}/v1/{endpoint['name']}:predict"
