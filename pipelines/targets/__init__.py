"""Where a pipeline runs: one trace per target, because what a task needs is said differently to each."""

from components.core.errors import UsageError
from pipelines.targets.base import Target
from pipelines.targets.local import Local
from pipelines.targets.needs import Needs
from pipelines.targets.site import Site

__all__ = ["ALL_TARGETS", "Local", "Needs", "Site", "Target", "make_target"]

ALL_TARGETS = ("local", "kubeflow", "vertex")


def make_target(name: str, site: Site | None = None) -> Target:
    """The target of that name, as the site's configuration describes it; `UsageError` lists the known ones."""
    site = site or Site()
    if name == "local":
        return Local()
    if name == "kubeflow":
        from pipelines.targets.kubeflow import Kubeflow

        return Kubeflow(site.kubeflow)
    if name == "vertex":
        from pipelines.targets.vertex import Vertex

        return Vertex(site.vertex)
    raise UsageError(f"there is no target '{name}'", where="--target", fix=f"Known: {', '.join(ALL_TARGETS)}")
