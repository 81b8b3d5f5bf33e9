"""Smoke traffic: golden and labelled images sent to every pod over REST, and what came back from each revision."""

import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

from components.core.errors import DualError
from components.core.gate import Reason
from serving.rollout.analysis.labelled import LabelledImage
from serving.rollout.analysis.pods import Connect, DirectAccess, PodAccess, PodTarget, UnreachableError
from serving.rollout.traffic import Query, Traffic

Pods = Mapping[PodTarget, PodAccess]
Image = Query | LabelledImage


@dataclass
class SmokeTraffic(Traffic):
    """What the pods of one revision made of their requests; those that reached no pod are not among them."""

    unreachable: dict[str, str] = field(default_factory=dict)
    """Pods at whose address nothing listens → what was said about it."""
    labels: dict[str, str] = field(default_factory=dict)
    """Image → the label that was answered."""

    def problem(self) -> str:
        """Which pods could not be asked; empty if all could."""
        return "; ".join(self.unreachable.values())

    def error_rate(self) -> float:
        """Share of requests without a usable answer; NaN without requests."""
        return len(self.errors) / self.sent if self.sent else math.nan

    def agreement(self) -> float:
        """Share of requests with the golden answer, failed ones counted as others; NaN without requests."""
        return 1 - (len(self.errors) + len(self.disagreements)) / self.sent if self.sent else math.nan

    def example(self) -> str:
        """The first thing that went wrong; empty if nothing did."""
        return next(iter([*self.errors, *self.disagreements]), "")


@dataclass(frozen=True)
class _Answer:
    target: PodTarget
    image: Image
    outcome: dict[str, Any] | DualError
    at: float
    latency: float


def smoke_traffic(
    candidate: Pods, stable: Pods, queries: Sequence[Query], *, per_pod: int, concurrency: int, first: int = 0
) -> tuple[SmokeTraffic, SmokeTraffic]:
    """Send `per_pod` golden images to each pod, beginning with number `first`; pods take turns, so that all see the same load.

    Answers of the candidate are compared with the golden ones; the stable version may rightly answer differently.
    """
    images = list(islice(cycle(queries), first, first + per_pod)) if queries else []
    pods = {**candidate, **stable}
    answers = _ask_all(pods, ((target, image) for image in images for target in pods), concurrency)
    seen = SmokeTraffic(), SmokeTraffic()
    for answer in answers:
        is_candidate = answer.target in candidate
        _count(seen[0 if is_candidate else 1], answer, compare=is_candidate)
    return seen


def labelled_traffic(pods: Pods, images: Sequence[LabelledImage], *, concurrency: int) -> SmokeTraffic:
    """Send each image to one of the pods in turn; an answer with another label than the true one is a disagreement."""
    turns = zip(cycle(pods), images, strict=False) if pods else ()
    traffic = SmokeTraffic()
    for answer in _ask_all(pods, turns, concurrency):
        _count(traffic, answer, compare=True)
    return traffic


def shared_agreement(candidate: SmokeTraffic, stable: SmokeTraffic) -> float:
    """Share of the images that both versions answered which both gave the same label; NaN without such an image."""
    shared = candidate.labels.keys() & stable.labels.keys()
    return sum(candidate.labels[name] == stable.labels[name] for name in shared) / len(shared) if shared else math.nan


def check_preview(
    pods: Sequence[PodTarget],
    queries: Sequence[Query],
    model: str,
    *,
    min_agreement: float = 1.0,
    concurrency: int = 4,
    timeout: float = 10.0,
    connect: Connect | None = None,
) -> list[Reason]:
    """Ask every pod every golden image before it gets live traffic; one check for each pod, named in the reason's `slice`.

    Passed only if there are pods and images, no request failed, and at least `min_agreement` of the answers were the golden ones. `timeout`
    in seconds for each answer.
    """
    if not pods or not queries:
        return [Reason(metric="preview", passed=False, text=f"preview: there is no {'golden image to ask' if pods else 'pod to be asked'}")]
    open_access = connect or (lambda target: DirectAccess(target, model, timeout=timeout))
    with connected(pods, open_access) as accesses:
        answers = list(_ask_all(accesses, ((target, query) for query in queries for target in pods), concurrency))
    traffic = {target: SmokeTraffic() for target in pods}
    for answer in answers:
        _count(traffic[answer.target], answer, compare=True)
    return [_preview(target, seen, min_agreement) for target, seen in traffic.items()]


@contextmanager
def connected(targets: Iterable[PodTarget], connect: Connect) -> Iterator[Pods]:
    """An access to each pod, closed at the end."""
    accesses = {target: connect(target) for target in targets}
    try:
        yield accesses
    finally:
        for access in accesses.values():
            access.close()


def _preview(target: PodTarget, seen: SmokeTraffic, min_agreement: float) -> Reason:
    passed = not seen.unreachable and not seen.errors and seen.agreement() >= min_agreement
    met = seen.sent - len(seen.errors) - len(seen.disagreements)
    text = f"preview of {target}: {met} of {seen.sent} golden answers met (must be >= {min_agreement:g} of them), {len(seen.errors)} failed"
    example = seen.problem() or seen.example()
    value = seen.agreement() if seen.sent else None
    explained = text if passed or not example else f"{text}; for example {example}"
    return Reason(metric="preview", slice=target.name, passed=passed, value=value, bound=min_agreement, text=explained)


def _ask_all(pods: Pods, questions: Iterable[tuple[PodTarget, Image]], concurrency: int) -> Iterator[_Answer]:
    start, gone, lock = time.monotonic(), set[PodTarget](), threading.Lock()

    def ask(question: tuple[PodTarget, Image]) -> _Answer | None:
        target, image = question
        with lock:
            if target in gone:
                # Its first failure says it all, and waiting for a connection takes seconds.
                return None
        answer = _ask(pods[target], target, image, start)
        if isinstance(answer.outcome, UnreachableError):
            with lock:
                gone.add(target)
        return answer

    with ThreadPoolExecutor(concurrency) as pool:
        yield from (answer for answer in pool.map(ask, questions) if answer is not None)


def _ask(access: PodAccess, target: PodTarget, image: Image, start: float) -> _Answer:
    began = time.monotonic()
    try:
        outcome: dict[str, Any] | DualError = access.predict(image.image)
    except DualError as error:
        outcome = error
    return _Answer(target, image, outcome, began - start, 1000 * (time.monotonic() - began))


def _count(traffic: SmokeTraffic, answer: _Answer, *, compare: bool) -> None:
    outcome, image = answer.outcome, answer.image
    if isinstance(outcome, UnreachableError):
        traffic.unreachable[answer.target.name] = str(outcome)
        return
    traffic.sent += 1
    if isinstance(outcome, DualError):
        traffic.errors.append(f"{image.name}: {outcome}")
        return
    traffic.samples.append((answer.at, answer.latency))
    label = str(outcome.get("label"))
    traffic.labels[image.name] = label
    if compare and not _as_expected(image, outcome):
        how = " with other probabilities" if label == image.label else ""
        traffic.disagreements.append(f"{image.name}: {answer.target} answered {label}{how}, expected {image.label}")


def _as_expected(image: Image, outcome: dict[str, Any]) -> bool:
    return image.agrees(outcome) if isinstance(image, Query) else outcome.get("label") == image.label
