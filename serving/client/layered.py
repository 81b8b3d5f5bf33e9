"""The layered pair on a device: the phone answers if it is sure enough, else the cloud does; if that fails, the phone's answer counts."""

import time
from dataclasses import dataclass
from typing import Literal

from serving.client.cloud import Cloud, CloudAnswer, CloudError
from serving.client.model import MobileAnswer, MobileModel

TIMEOUT = 2.0
"""Seconds: longer than that, a person has moved on."""


@dataclass(frozen=True)
class Decision:
    """One image's answer, who gave it, and why."""

    label: str
    score: float
    model: Literal["mobile", "cloud"]
    why: str
    release: str
    """The release whose mobile model is in service here."""
    mobile: MobileAnswer
    cloud: CloudAnswer | None = None
    cloud_seconds: float | None = None
    """How long the cloud was waited for; None if it was not asked."""


class LayeredModel:
    """A device's model with a cloud behind it, or without one (offline, or no address known)."""

    def __init__(self, mobile: MobileModel, cloud: Cloud | None, timeout: float = TIMEOUT) -> None:
        """`timeout` in seconds is what the cloud is given for an answer."""
        self._mobile, self._cloud, self._timeout = mobile, cloud, timeout

    def classify(self, image: bytes, *, ask: bool | None = None) -> Decision:
        """JPEG or PNG bytes → decision; `ask` overrules the policy. `DataError` if the bytes are no such image."""
        answer = self._mobile.classify(image)
        policy = self._mobile.policy
        unsure = policy.decide(answer.score) == "cloud"
        relation = "below" if unsure else "at least"
        why = f"its confidence {answer.score:.2f} is {relation} {policy.threshold:g}"
        if not (unsure if ask is None else ask):
            return self._by_phone(answer, "the cloud was not to be asked" if unsure else why)
        return self._ask(image, answer, why if ask is None else "the cloud was asked for")

    def _ask(self, image: bytes, answer: MobileAnswer, why: str) -> Decision:
        if self._cloud is None:
            return self._by_phone(answer, f"{why}, but there is no cloud to ask")
        began = time.monotonic()
        try:
            found = self._cloud.ask(image, self._timeout)
        except CloudError as error:
            return self._by_phone(answer, f"{why}, but the cloud {_short(error)}", time.monotonic() - began)
        seconds = time.monotonic() - began
        if found.label not in self._mobile.installed.mobile.labels:
            return self._by_phone(answer, f"{why}, but the cloud answers '{found.label}', which this app does not know", seconds)
        return Decision(found.label, found.score, "cloud", why, self._mobile.installed.release, answer, found, seconds)

    def _by_phone(self, answer: MobileAnswer, why: str, seconds: float | None = None) -> Decision:
        release = self._mobile.installed.release
        return Decision(answer.label, answer.score, "mobile", why, release, answer, cloud_seconds=seconds)


def _short(error: CloudError) -> str:
    return f"gave {error.what}" if error.what.startswith("no answer") else error.what
