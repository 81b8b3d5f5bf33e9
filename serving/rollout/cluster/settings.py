"""How a release takes over the live traffic of a cluster: strategy, steps, analysis, and how long anything may take."""

from itertools import pairwise
from typing import Literal

from pydantic import Field, field_validator

from components.core.settings import Section
from serving.rollout.analysis.settings import AnalysisSettings
from serving.rollout.notify import NotificationSettings

SETTINGS_KEY = "settings.yaml"
"""Key of the ConfigMap `classifier-rollout-settings` under which operators keep their plan."""
_YEAR = 366 * 86_400.0
"""Seconds: what would take longer is a mistake, and somewhere no date any more."""


class Step(Section):
    """One step of a canary."""

    weight: int = Field(ge=1, le=99, description="Share of live traffic for the candidate, in percent.")
    pause: float | Literal["manual"] = Field(
        default=0.0, description="Seconds to wait after the step's analysis; `manual`: until somebody promotes or resumes."
    )

    @field_validator("pause")
    @classmethod
    def _lasts(cls, pause: float | str) -> float | str:
        if isinstance(pause, float) and not 0 <= pause <= _YEAR:
            raise ValueError("should be from 0 to a year's seconds, or manual")
        return pause


class Plan(Section):
    """The course of a rollout. It is kept in the rollout's state, so whoever takes it over follows the same plan."""

    strategy: Literal["canary", "blue-green", "recreate", "labels"] = Field(
        default="canary",
        description="`canary`: a growing share of live traffic; `blue-green`: all at once after the preview's checks; `recreate`: the "
        "old pods end before the new ones start (a gap in service); `labels`: both versions in the same pods, the label `stable` moves "
        "(for one GPU; needs the component labels).",
    )
    make_room: bool = Field(
        default=False,
        description="`labels`, where pods have to be made anew (the first time, or the template changed): the old ones end before the new "
        "ones start, a gap in service. False: the new ones start beside them.",
    )
    steps: list[Step] = Field(
        default=[Step(weight=10), Step(weight=50)], min_length=1, max_length=100, description="The canary's steps; weights rise."
    )
    gate: bool = Field(default=False, description="Wait for somebody to promote before all traffic moves.")
    analysis: AnalysisSettings = Field(default=AnalysisSettings(), description="What is measured at each step and after the switch.")
    preview: bool = Field(default=True, description="Ask every candidate pod the golden images before any live traffic reaches it.")
    post_count: int = Field(default=1, ge=0, description="Rounds of analysis after all traffic moved; 0 leaves it out.")
    progress_deadline: float = Field(default=600.0, gt=0, le=_YEAR, description="Seconds within which the pods of a step must be ready.")
    scale_down_delay: float = Field(
        default=30.0,
        ge=0,
        le=_YEAR,
        description="Seconds that the old pods stay (`labels`: that the version of before stays loaded) after the switch, and after the "
        "publication: an undo in this time is instant.",
    )
    publish_within: float = Field(
        default=900.0, gt=0, le=_YEAR, description="Seconds after the switch within which the pair must be published; else it goes back."
    )
    revisions_kept: int = Field(default=3, ge=1, description="Old revisions whose Deployments are kept with 0 pods.")
    poll_seconds: float = Field(default=1.0, gt=0, le=60, description="Seconds between two looks at the cluster while waiting.")
    alive_within: float = Field(
        default=30.0,
        gt=0,
        description="Seconds without a sign of life after which a rollout's process counts as dead; it gives three in that time.",
    )
    if_abandoned: Literal["finish", "abort"] = Field(
        default="finish",
        description="What a follower does with a rollout whose process died: bring it to its end, publication included, or take it back.",
    )

    @field_validator("steps")
    @classmethod
    def _rises(cls, steps: list[Step]) -> list[Step]:
        for before, after in pairwise(steps):
            if after.weight < before.weight:
                raise ValueError(f"weights must rise: {after.weight} comes after {before.weight}")
        return steps


class ClusterAccess(Section):
    """Which cluster, and how it is talked to."""

    namespace: str = Field(default="", description="Namespace of the served model; empty: the kubeconfig context's or the pod's own.")
    context: str = Field(default="", description="kubeconfig context; empty: the current one, or the cluster that the step runs in.")
    access: Literal["direct", "proxy"] = Field(
        default="direct", description="How pods are asked: by their address (inside the cluster), or through the API server (from outside)."
    )
    patience: float = Field(default=60.0, gt=0, description="Seconds for which an API server that does not answer is asked again.")


class ClusterSettings(ClusterAccess):
    """Which cluster, and the plan."""

    notifications: NotificationSettings = Field(default=NotificationSettings(), description="Who is told of every transition.")
    plan: Plan | None = Field(
        default=None, description="The course of the rollout; null: the one in the ConfigMap <name>-rollout-settings, or the defaults."
    )
