"""Settings of validate_infra."""

from typing import Literal

from pydantic import Field

from components.core.settings import Section
from serving.rollout.cluster.settings import ClusterAccess


class Budgets(Section):
    """Upper bounds; null leaves a figure unchecked. Figures of a machine as busy as the one that runs the step."""

    cloud_load_seconds: float | None = Field(default=60.0, gt=0, description="Loading the SavedModel, without starting the server.")
    cloud_p50_ms: float | None = Field(default=None, gt=0, description="Median latency of one image over REST.")
    cloud_p99_ms: float | None = Field(default=5000.0, gt=0, description="99th percentile of the same.")
    cloud_memory_mb: float | None = Field(default=4096.0, gt=0, description="Peak resident memory of the server.")
    cloud_size_mb: float | None = Field(default=500.0, gt=0, description="The SavedModel's files.")
    mobile_load_seconds: float | None = Field(default=10.0, gt=0, description="Loading the .tflite into the interpreter.")
    mobile_p50_ms: float | None = Field(default=None, gt=0, description="Median latency of one image on one thread.")
    mobile_p99_ms: float | None = Field(default=1000.0, gt=0, description="99th percentile of the same.")
    mobile_memory_mb: float | None = Field(default=1024.0, gt=0, description="Peak resident memory of the interpreter's process.")
    mobile_size_mb: float | None = Field(default=40.0, gt=0, description="The .tflite; 40 MB is Firebase ML's limit.")


class PodSettings(ClusterAccess):
    """Where the pod runs, how it gets the model, and how long it may take."""

    store: str = Field(
        default="",
        description="Address under which the pod finds the run's store (gs://, s3://, http(s)://, a mounted folder); empty: the one under "
        "which server pods find releases.",
    )
    ready_within: float = Field(
        default=600.0, gt=0, description="Seconds within which the pod must be ready: a node, the image, the model, its warm-up."
    )
    asked_within: float = Field(
        default=600.0, gt=0, description="Seconds for all questions after that; then Kubernetes ends the pod, whatever becomes of the step."
    )
    poll_seconds: float = Field(default=1.0, gt=0, le=60, description="Seconds between two looks at the pod.")


class ValidateInfraSettings(Section):
    """Where the models are loaded, what is sent to both, how close the answers must be, and the budgets."""

    target: Literal["local", "kubernetes"] = Field(
        default="local",
        description="What serves the cloud model: `local`: our own server as a process beside the step; `kubernetes`: a short-lived pod of "
        "the cluster in the section `kubernetes`, made from the applied template: its image, flags and limits.",
    )
    kubernetes: PodSettings = Field(default=PodSettings(), description="The cluster, and the pod's time.")
    golden_per_class: int = Field(
        default=2, ge=1, le=20, description="Golden images of each class; the last of them is the least certain one."
    )
    requests: int = Field(default=40, ge=5, le=10_000, description="Images sent one after the other to measure latency.")
    cloud_tolerance: float = Field(
        default=1e-3, gt=0, description="Largest difference of a probability between the server and the evaluation."
    )
    mobile_tolerance: int = Field(default=1, ge=0, le=16, description="Largest difference of a uint8 probability (1/256 each).")
    start_timeout: float = Field(default=180.0, gt=0, description="Seconds within which each process must be ready.")
    request_timeout: float = Field(default=30.0, gt=0, description="Seconds within which a request must be answered.")
    max_request_mb: int = Field(
        default=8, ge=1, le=1024, description="The server's request limit; a larger request must be refused cleanly."
    )
    budgets: Budgets = Field(default=Budgets(), description="Upper bounds of load time, latency, memory and size.")
