"""The names, labels and annotations by which a rollout, its manifests and an operator find the same objects."""

from dataclasses import dataclass

NAME = "app.kubernetes.io/name"
COMPONENT = "app.kubernetes.io/component"
SERVER = "server"
INFRA_CHECK = "infra-check"
"""The component that validate_infra's pods are, which no Service selects."""
MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "dual-rollout"

REVISION = "dual.dev/revision"
"""Label of pods, Deployments and selectors: which revision."""
RELEASE = "dual.dev/release"
"""Annotation: the release that a revision serves."""
STABLE = "dual.dev/stable"
"""Annotation of the live Service: the revision that traffic belongs to while the selector may admit a second one."""
EPOCH = "dual.dev/epoch"
"""Annotation of every owned object: the epoch of the run that may write it."""
REPLICAS = "dual.dev/replicas"
"""Annotation of the template: how many pods the stable revision has, where no autoscaler decides."""
ACTION = "dual.dev/action"
"""Annotation of the state: what a person wants to happen next."""
NOBODY = "none"
"""The revision that a Service selects when it is to select no pod."""

HOLDS = "dual.dev/holds"
"""Annotation of the live Service: which releases the pods of each host hold, and which of them the label `stable` selects there."""
HOST = "labels"
"""What the revision of a host begins with: a Deployment whose pods hold what the annotation says, and not one release for good."""

FETCHER = "fetch"
"""The container that brings models into a pod; in a host's pods it goes on doing so."""

RELEASE_VARIABLE = "DUAL_RELEASE"
DIGEST_VARIABLE = "DUAL_RELEASE_SHA256"
CANDIDATE_VARIABLE = "DUAL_CANDIDATE"
HOST_VARIABLE = "DUAL_HOST"
"""In a template that has it, pods hold what the live Service says: a rollout writes the host's revision there."""
STORE_VARIABLE = "DUAL_STORE"


@dataclass(frozen=True, kw_only=True)
class Names:
    """Every object of one served model in one namespace."""

    namespace: str
    name: str = "classifier"

    @property
    def template(self) -> str:
        """The applied Deployment with 0 replicas that revisions are copied from."""
        return self.name

    @property
    def service(self) -> str:
        """The live Service."""
        return self.name

    @property
    def preview(self) -> str:
        """The Service of the candidate."""
        return f"{self.name}-preview"

    @property
    def route(self) -> str:
        """The HTTPRoute, where there is one."""
        return self.name

    @property
    def autoscaler(self) -> str:
        """The applied, inert HorizontalPodAutoscaler that live revisions' own ones are copied from, where there is one."""
        return self.name

    @property
    def state(self) -> str:
        """The ConfigMap with the rollout's state and history."""
        return f"{self.name}-rollout"

    @property
    def lease(self) -> str:
        """The Lease by which the process that runs the rollout shows that it lives."""
        return f"{self.name}-rollout"

    def deployment(self, revision: str) -> str:
        """The Deployment of a revision, and its HorizontalPodAutoscaler."""
        return f"{self.name}-{revision}"

    def revision(self, deployment: str) -> str:
        """The revision of a Deployment; its label may have been changed by somebody, its name can't be."""
        return deployment.removeprefix(f"{self.name}-")

    @property
    def labels(self) -> dict[str, str]:
        """What every server pod carries, of whatever revision."""
        return {NAME: self.name, COMPONENT: SERVER}

    def selector(self, revision: str | None) -> dict[str, str]:
        """The labels of one revision's pods, or of all revisions' (None)."""
        return self.labels if revision is None else {**self.labels, REVISION: revision}


def query(labels: dict[str, str]) -> str:
    """A label selector as the API's query parameter."""
    return ",".join(f"{key}={value}" for key, value in labels.items())
