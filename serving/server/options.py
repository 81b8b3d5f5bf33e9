"""What the server can be told: TF Serving's own flags where they exist, and a few of ours."""

from dataclasses import dataclass, field
from pathlib import Path

METRICS_PATH = "/monitoring/prometheus/metrics"


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How requests that wait at the same time are merged into one run."""

    merge: bool = True
    """Whether requests share runs at all."""
    max_batch_size: int = 32
    """Most rows (images) in one run; a larger request is run in pieces."""
    timeout_micros: int = 5000
    """How long a run waits at most for the clients that were there a moment ago."""
    max_enqueued_batches: int = 8
    """Full batches that may wait; beyond that a request is refused, so that latency stays bounded."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Everything a server needs besides its models. Ports: 0 is any free one, None is switched off."""

    host: str = "127.0.0.1"
    rest_port: int | None = 0
    grpc_port: int | None = 0
    poll_seconds: float = 1.0
    """Seconds between looks at the file system; 0 looks only once and at reloads."""
    max_load_retries: int = 5
    load_retry_seconds: float = 60.0
    allow_labels_for_unavailable: bool = False
    """Whether a label that is new may point to a version that is not AVAILABLE yet."""
    metrics_path: str | None = METRICS_PATH
    """Where Prometheus metrics are served; None serves none."""
    health: bool = True
    """Whether grpc.health.v1 is served."""
    rest_timeout_seconds: float = 30.0
    max_request_bytes: int = 64 << 20
    max_in_flight: int = 256
    """Requests that may be in progress at once, over both protocols."""
    drain_seconds: float = 20.0
    """How long requests in progress may take after SIGTERM."""
    batching: Batching = field(default_factory=Batching)
    ready_file: Path | None = None
    """Where the bound ports are written as JSON when the server is ready."""
