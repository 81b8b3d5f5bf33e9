"""Settings of a training by several workers."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from components.core.settings import Section


class WorkerPodSettings(Section):
    """Workers as pods of an Indexed Job; what is not said here is as in the pod of the step."""

    namespace: str = Field(default="", description="Where the Job is made; empty: the step's own namespace.")
    image: str = Field(default="", description="The image dual-trainer, as the cluster can pull it; empty: the step's own.")
    service_account: str = Field(default="", description="Account of the workers, which must reach the store; empty: the step's own.")
    resources: dict[str, dict[str, str]] = Field(
        default={},
        description="Requests and limits of one worker, `{requests: {cpu: 4}, limits: {nvidia.com/gpu: 1}}`; empty: the step's own.",
    )
    node_selector: dict[str, str] = Field(default={}, description="Labels of the nodes; empty: the step's own.")
    tolerations: list[dict[str, Any]] = Field(default=[], description="Tolerations; empty: the step's own.")
    env: dict[str, str] = Field(default={}, description="More variables of the workers. No secrets: those come with the step's own.")
    port: int = Field(default=2222, ge=1024, le=65535, description="Where workers listen to each other.")


class WorkerPoolSettings(Section):
    """Workers as the worker pools of a custom job on Vertex AI."""

    project: str = Field(default="", pattern=r"^[a-z0-9:.-]*$", description="Project id; empty: DUAL_VERTEX_PROJECT, or the credentials'.")
    region: str = Field(default="", pattern=r"^[a-z0-9-]*$", description="Region, such as europe-west4; empty: DUAL_VERTEX_REGION.")
    image: str = Field(default="", description="The image dual-trainer in Artifact Registry. Must be named: a step does not know its own.")
    machine_type: str = Field(default="n1-standard-8", pattern=r"^[a-z0-9-]+$", description="Machine type of one worker.")
    accelerator_type: str = Field(default="", pattern=r"^([A-Z][A-Z0-9_]*)?$", description="Such as NVIDIA_L4; empty: none.")
    accelerator_count: int = Field(default=0, ge=0, le=16, description="Accelerators of one worker.")
    spot: bool = Field(default=False, description="Whether workers may run on machines that are taken away at any moment.")
    service_account: str = Field(default="", pattern=r"^(\S+@\S+)?$", description="Account of the workers; empty: the project's default.")
    env: dict[str, str] = Field(default={}, description="Variables of the workers; no secrets.")
    hours: float = Field(default=24.0, gt=0, le=168, description="Hours after which Vertex ends the job, whatever becomes of the step.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if bool(self.accelerator_type) != bool(self.accelerator_count):
            raise ValueError("accelerator_type and accelerator_count belong together: set both, or none")
        return self


class WorkersSettings(Section):
    """How many workers train a model together, by MultiWorkerMirroredStrategy; each may have several GPUs."""

    count: int = Field(default=1, ge=1, le=64, description="Workers; 1: the step trains by itself.")
    target: Literal["processes", "kubernetes", "vertex"] = Field(
        default="kubernetes",
        description="`kubernetes`: pods of an Indexed Job; `vertex`: a custom job's worker pools; `processes`: the step's own machine.",
    )
    restarts: int = Field(default=3, ge=0, le=100, description="How often each worker may be started again after it failed.")
    start_within: float = Field(default=1800.0, gt=0, description="Seconds within which all workers must have begun the first epoch.")
    stalled_after: float = Field(
        default=1800.0, gt=0, description="Seconds without a finished epoch after which the workers count as stuck, and the step fails."
    )
    kubernetes: WorkerPodSettings = WorkerPodSettings()
    vertex: WorkerPoolSettings = WorkerPoolSettings()
