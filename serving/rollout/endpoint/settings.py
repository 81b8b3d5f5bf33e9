"""Where on Vertex AI a release is served, in which container and on what machines, and the course of a rollout there.

Fields that have a counterpart in Google's REST are named after it, in snake_case:
https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.endpoints and …/v1/ModelContainerSpec
"""

from itertools import pairwise
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from components.core.settings import Section
from serving.rollout.analysis.settings import AnalysisSettings
from serving.rollout.cluster.settings import Step
from serving.rollout.notify import NotificationSettings

_YEAR = 366 * 86_400.0
_ROUTE = r"^(/[^\s?#]*)?$"


class Container(Section):
    """The container that serves a release; `server` fills in what is left empty."""

    server: Literal["tf-serving", "dual-server", "prebuilt", "custom"] = Field(
        default="tf-serving",
        description="`tf-serving`: an image of TensorFlow Serving; `dual-server`: this project's image; `prebuilt`: one of Vertex' own "
        "for TensorFlow; `custom`: anything that follows Vertex' contract, by command, args and routes.",
    )
    image: str = Field(default="", description="Image in Artifact Registry, with its digest if it shall stay the same. Must be named.")
    command: list[str] = Field(default=[], description="Instead of the server's own; $(AIP_STORAGE_URI) and the like are filled in.")
    args: list[str] = Field(default=[], description="Instead of the server's own arguments.")
    env: dict[str, str] = Field(default={}, description="Environment variables of the container; no secrets.")
    port: int = Field(default=0, ge=0, le=65535, description="Port that the server listens at; 0: the server's own (8501, else 8080).")
    predict_route: str = Field(default="", pattern=_ROUTE, description="Path of predictions; empty: the server's own.")
    health_route: str = Field(
        default="", pattern=_ROUTE, description="Path that answers 200 once the model is loaded; empty: the server's own."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.server == "custom" and not (self.predict_route and self.health_route):
            raise ValueError("server custom needs predict_route and health_route")
        if self.server == "prebuilt" and (self.command or self.args):
            raise ValueError("Vertex' prebuilt containers take neither command nor args: leave them away, or set server: custom")
        return self


class Machines(Section):
    """What each deployed model runs on (dedicatedResources)."""

    machine_type: str = Field(default="n1-standard-4", pattern=r"^[a-z0-9-]+$", description="Machine type of one replica.")
    accelerator_type: str = Field(
        default="", pattern=r"^([A-Z][A-Z0-9_]*)?$", description="Accelerator in Vertex' words, such as NVIDIA_L4; empty: none."
    )
    accelerator_count: int = Field(default=0, ge=0, le=16, description="Accelerators of one replica.")
    min_replicas: int = Field(default=1, ge=1, le=1000, description="Replicas that always run, also at weight 0.")
    max_replicas: int = Field(default=1, ge=1, le=1000, description="Replicas at most.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is below min_replicas {self.min_replicas}")
        if bool(self.accelerator_type) != bool(self.accelerator_count):
            raise ValueError("accelerator_type and accelerator_count belong together: set both, or none")
        return self


class EndpointPlan(Section):
    """The course of a rollout. It is kept in the rollout's state, so whoever takes it over follows the same plan."""

    steps: list[Step] = Field(
        default=[Step(weight=10), Step(weight=50)], min_length=1, max_length=100, description="The canary's steps; weights rise."
    )
    gate: bool = Field(default=False, description="Wait for somebody to promote before all traffic moves.")
    analysis: AnalysisSettings = Field(
        default=AnalysisSettings(),
        description="What is measured at each step and after the switch. smoke.requests are answers wanted of the candidate in a round; "
        "smoke.most is how many requests are sent for them at most.",
    )
    post_count: int = Field(default=1, ge=0, description="Rounds of analysis after all traffic moved; 0 leaves it out.")
    progress_deadline: float = Field(
        default=3600.0, gt=0, le=_YEAR, description="Seconds within which a model must be uploaded and deployed, or a step be over."
    )
    scale_down_delay: float = Field(
        default=300.0,
        ge=0,
        le=_YEAR,
        description="Seconds that the old model stays deployed at weight 0 after the switch, and after the publication: an undo in this "
        "time only moves the split.",
    )
    publish_within: float = Field(
        default=900.0, gt=0, le=_YEAR, description="Seconds after the switch within which the pair must be published; else it goes back."
    )
    poll_seconds: float = Field(default=5.0, gt=0, le=60, description="Seconds between two looks while waiting.")

    @field_validator("steps")
    @classmethod
    def _rises(cls, steps: list[Step]) -> list[Step]:
        for before, after in pairwise(steps):
            if after.weight < before.weight:
                raise ValueError(f"weights must rise: {after.weight} comes after {before.weight}")
        return steps


class EndpointPlace(Section):
    """One endpoint of one project and region, and what is deployed into it."""

    project: str = Field(default="", pattern=r"^[a-z0-9:.-]*$", description="Project id; empty: DUAL_VERTEX_PROJECT, or the credentials'.")
    region: str = Field(default="", pattern=r"^[a-z0-9-]*$", description="Region, such as europe-west4; empty: DUAL_VERTEX_REGION.")
    endpoint: str = Field(
        default="", max_length=128, description="Exact display name of the endpoint; it is made if there is none. Empty: the model's name."
    )
    dedicated: bool = Field(
        default=False, description="Whether an endpoint that is made gets a host name of its own (larger requests, no neighbours)."
    )
    container: Container = Field(default=Container(), description="What serves the model.")
    machines: Machines = Field(default=Machines(), description="What each deployed model runs on.")
    service_account: str = Field(
        default="",
        pattern=r"^(\S+@\S+)?$",
        description="Account that containers run as; empty: one of Vertex' that reads the model only.",
    )
    patience: float = Field(default=120.0, gt=0, le=3600, description="Seconds for which a service that does not answer is asked again.")


class EndpointSettings(EndpointPlace):
    """Where, and how."""

    plan: EndpointPlan = Field(default=EndpointPlan(), description="The course of the rollout.")
    notifications: NotificationSettings = Field(default=NotificationSettings(), description="Who is told of every transition.")

    def place(self) -> EndpointPlace:
        """The place alone, as it is kept in a rollout's state: without what may be secret."""
        return EndpointPlace.model_validate(self.model_dump(include=set(EndpointPlace.model_fields)))
