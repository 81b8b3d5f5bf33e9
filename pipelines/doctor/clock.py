"""This machine's clock against those that it works with, by the Date of their answers (RFC 9110, section 6.6.1)."""

import os
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import httpx

from components.core.errors import DualError
from pipelines.doctor.finding import Finding, failed, ok, skipped, warning
from pipelines.doctor.visit import Visit

TOLERATED, DANGEROUS = 5.0, 60.0
"""Seconds: a rollout's deadlines and a run's times are compared between machines; tokens and signed requests are refused beyond minutes."""
_FIX = "Let the clock be kept: timedatectl set-ntp true   (or: chronyc makestep)"


def check_clock(visit: Visit) -> list[Finding]:
    """The clock agrees with the cluster's and the store's, as far as they answer."""
    found = [_judge(name, skew) for name, skew in _skews(visit)]
    return found or [skipped("clock", "nobody to compare it with: no cluster, and no store over the network")]


def _skews(visit: Visit) -> Iterator[tuple[str, float]]:
    """(whose clock, seconds that ours is ahead)."""
    if visit.target == "kubeflow":
        try:
            began = time.time()
            date = visit.kube.ask("GET", "/version").headers.get("Date", "")
            yield from _compared("the API server", date, began)
        except DualError:
            # Why it does not answer is another check's to say.
            pass
    if address := _store_address(visit.store):
        try:
            began = time.time()
            date = httpx.head(address, timeout=visit.seconds / 2).headers.get("Date", "")
            yield from _compared("the store", date, began)
        except httpx.HTTPError:
            pass


def _compared(name: str, date: str, began: float) -> Iterator[tuple[str, float]]:
    if date:
        # Dates have no fractions: on average half a second has passed since.
        theirs = parsedate_to_datetime(date).timestamp() + 0.5
        yield name, (began + time.time()) / 2 - theirs


def _store_address(store: str) -> str:
    scheme = store.partition("://")[0]
    if scheme == "gs":
        return os.environ.get("STORAGE_EMULATOR_HOST", "https://storage.googleapis.com")
    if scheme == "s3":
        return os.environ.get("AWS_ENDPOINT_URL", "https://s3.amazonaws.com")
    return store if scheme in ("http", "https") else ""


def _judge(name: str, skew: float) -> Finding:
    size, way = abs(skew), "ahead of" if skew > 0 else "behind"
    found = f"{size:.0f} s {way} {name}"
    if size > DANGEROUS:
        return failed("clock", f"{found}: tokens and signed requests are refused, deadlines are wrong", _FIX)
    if size > TOLERATED:
        return warning("clock", f"{found}: deadlines of rollouts are off by that", _FIX)
    return ok("clock", f"agrees with {name}")
