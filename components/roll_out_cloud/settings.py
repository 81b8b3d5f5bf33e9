"""Settings of roll_out_cloud."""

from typing import Literal

from pydantic import Field

from components.core.settings import Section
from serving.rollout.cluster.settings import ClusterSettings
from serving.rollout.endpoint.settings import EndpointSettings


class RollOutCloudSettings(Section):
    """Where the cloud model is served, and for `local` how a candidate is checked there and how long it may wait for its other half."""

    target: Literal["local", "kubernetes", "vertex"] = Field(
        "local",
        description="`local`: the servers of `dual serve` on this machine; `kubernetes`: the cluster of the section `kubernetes`; "
        "`vertex`: the Vertex AI endpoint of the section `vertex`.",
    )
    kubernetes: ClusterSettings = Field(ClusterSettings.model_validate({}), description="The cluster, and the course of a rollout there.")
    vertex: EndpointSettings = Field(EndpointSettings.model_validate({}), description="The endpoint, and the course of a rollout there.")
    strategy: Literal["labels"] = Field(
        "labels", description="`labels`: two versions in one server, the label `stable` is moved by HandleReloadConfigRequest."
    )
    requests: int = Field(60, ge=1, le=100_000, description="Replayed requests to the candidate, and as many to the running version.")
    concurrency: int = Field(2, ge=1, le=64, description="Replayed requests in flight at once.")
    max_error_rate: float = Field(0.0, ge=0, le=1, description="Share of replayed requests that may fail.")
    min_agreement: float = Field(1.0, ge=0, le=1, description="Share of golden answers that must be met (label and probabilities).")
    max_p99_ms: float = Field(2000.0, gt=0, description="The candidate's 99th percentile latency may be at most this, in milliseconds.")
    max_p99_ratio: float = Field(3.0, gt=0, description="… and at most this many times the running version's, where one runs.")
    p99_slack_ms: float = Field(50.0, ge=0, description="A difference to the running version below this is noise, in milliseconds.")
    load_timeout: float = Field(180.0, gt=0, description="Seconds within which a server must have loaded the candidate.")
    publish_within: float = Field(
        900.0, gt=0, description="Seconds after the label moved within which the pair must be published; else servers fall back."
    )
