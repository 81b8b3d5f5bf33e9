"""What a rollout needs besides an API server: controllers that make pods ready, a judge who is content, a channel in memory."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from components.core.errors import ConflictError
from components.core.gate import Reason
from serving.rollout.analysis.pods import PodTarget
from serving.rollout.analysis.rules import Measurement
from serving.rollout.analysis.settings import AnalysisSettings
from serving.rollout.cluster.api import Api, connect
from serving.rollout.cluster.names import NAME

QUICK = AnalysisSettings(count=1, interval=0.001)


class ContentJudge:
    """Finds nothing wrong."""

    def preview(self, candidate: list[PodTarget]) -> list[Reason]:
        """One check that passed."""
        return [Reason(metric="golden", passed=True, text="golden answers")]

    def measure(self, candidate: list[PodTarget], stable: list[PodTarget]) -> list[Measurement]:
        """Every metric is fine."""
        return [Measurement(metric=name, outcome="successful", at="2026-01-01T00:00:00Z") for name in QUICK.metrics()]


class Channel:
    """Which release is promoted."""

    def __init__(self) -> None:
        self.promoted = ""

    def release(self) -> str:
        """The promoted release."""
        return self.promoted

    def sequence(self) -> int:
        """No test here publishes twice in one rollout."""
        return 0


@contextmanager
def ready_pods(kubeconfig: str, namespace: str) -> Iterator[None]:
    """While this is open, every Deployment of the namespace gets the status of a healthy cluster."""
    api, ended = connect(namespace, kubeconfig=Path(kubeconfig)), threading.Event()

    def run() -> None:
        while not ended.wait(0.05):
            with suppress(ConflictError):
                _settle(api)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _settle(api: Api) -> None:
    for deployment in api.list("Deployment", f"{NAME}=classifier"):
        wanted = deployment["spec"].get("replicas", 1)
        status = {"observedGeneration": deployment["metadata"]["generation"]}
        status |= dict.fromkeys(("replicas", "readyReplicas", "availableReplicas"), wanted) if wanted else {}
        if deployment.get("status") != status:
            api.patch("Deployment", f"{deployment['metadata']['name']}/status", [{"op": "add", "path": "/status", "value": status}])
