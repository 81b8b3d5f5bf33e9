"""What a provider outside is asked about: the two revisions and their pods."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from serving.rollout.analysis.pods import PodTarget


@dataclass(frozen=True)
class Subject:
    """One revision of a model, and its pods."""

    model: str
    revision: str
    pods: Sequence[str]
    shared: bool = False
    """Whether the same pods serve another version too."""

    def pattern(self) -> str:
        """A regular expression (RE2, as PromQL has it) that matches exactly the pods' names; nothing if there are none."""
        return "|".join(re.escape(name).replace(r"\-", "-") for name in self.pods) or "^$"


def subject_of(model: str, pods: Sequence[PodTarget]) -> Subject | None:
    """The revision that the pods serve; None without pods."""
    return Subject(model, pods[0].revision, [pod.name for pod in pods], any(pod.shared for pod in pods)) if pods else None
