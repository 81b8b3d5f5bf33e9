"""What the doctor was asked to look at, and the ways there: a cluster's API, opened once and shared by the checks."""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.doctor.kube import Kube, open_kube
from pipelines.targets.site import Site

SYSTEM_NAMESPACE = "kubeflow"


@dataclass(frozen=True, kw_only=True)
class Visit:
    """The options of one call of `dual doctor`."""

    target: str
    store: str = ""
    data: str = ""
    site: Site = field(default_factory=Site)
    name: str = "classifier"
    """Of the served model and of its objects."""
    namespace: str = ""
    """Of the served model; empty: the site's, or the kubeconfig context's."""
    context: str = ""
    kubeconfig: Path | None = None
    images: tuple[str, ...] = ()
    """Images that pods will be started from."""
    try_images: bool = False
    """Whether a short-lived pod may be started to see that its images can be pulled."""
    connection: Any = None
    """How Kubeflow Pipelines is reached (`pipelines.submission.kubeflow.connection.Connection`)."""
    project: str = ""
    region: str = ""
    service_account: str = ""
    """Of the steps, on Vertex."""
    firebase_bucket: str = ""
    seconds: float = 20.0
    """Longest that one check may take; a single request gets half of it."""
    _kube: "list[Kube | Exception]" = field(default_factory=list, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def kube(self) -> Kube:
        """The cluster's API; raises what kept it from being opened, for every check alike."""
        with self._lock:
            if not self._kube:
                self._kube.append(self._open())
        found = self._kube[0]
        if isinstance(found, Exception):
            raise found
        return found

    @property
    def serving_namespace(self) -> str:
        """Where the model is served."""
        return self.namespace or self.site.kubeflow.serving_namespace or self.kube.namespace

    @property
    def system_namespace(self) -> str:
        """Where Kubeflow Pipelines is installed."""
        return self.connection.system_namespace if self.connection else SYSTEM_NAMESPACE

    @property
    def runs_namespace(self) -> str:
        """Where the pods of runs are: the user's namespace in a multi-user installation, else Kubeflow's own."""
        return (self.connection.namespace if self.connection else "") or self.system_namespace

    @property
    def namespaces(self) -> list[str]:
        """Where pods of ours are: the server's namespace, and on Kubeflow that of runs."""
        found = [self.serving_namespace]
        if self.target == "kubeflow" and self.runs_namespace not in found:
            found.append(self.runs_namespace)
        return found

    def _open(self) -> "Kube | Exception":
        try:
            return open_kube(context=self.context, kubeconfig=self.kubeconfig, timeout=self.seconds / 2)
        except Exception as error:
            return error
