"""What each step asks of its machine at a site, as something that has a price."""

from components.core.machine import this_machine
from components.cost.estimate import Asked
from components.cost.prices import ANY, Hardware
from components.cost.run import hardware_of
from components.report.story import ORDER
from pipelines.quantity import gib, quantity
from pipelines.step_needs import NEEDS
from pipelines.targets.needs import Needs
from pipelines.targets.site import KubeflowSite, Site, VertexSite

NO_ACCELERATOR = "none"


def asked_of(target: str, site: Site, accelerator: str = "") -> dict[str, Asked]:
    """Step → what it asks for on `target`, in the order of the flow.

    Steps are priced by their limits: what they may use, and what Vertex chooses its machines by. `accelerator` is a model, `any` or `none`;
    empty means the site's.
    """
    if target == "local":
        return dict.fromkeys(ORDER, Asked(hardware=hardware_of(this_machine())))
    place = site.vertex if target == "vertex" else site.kubeflow
    return {step: _asked(NEEDS[step], step, place, accelerator) for step in ORDER}


def _asked(needs: Needs, step: str, site: KubeflowSite | VertexSite, accelerator: str) -> Asked:
    own = site.steps.get(step)
    changed = {key: value for key, value in own.model_dump().items() if value is not None} if own else {}
    get = {**vars(needs), **changed}.__getitem__
    model, count = _accelerators(site, accelerator) if get("accelerator") else ("", 0)
    hardware = Hardware(cpus=quantity(get("cpu_limit")), memory_gib=gib(get("memory_limit")), accelerator=model, count=count)
    spot = isinstance(site, KubeflowSite) and site.spot.enabled and bool(get("spot"))
    return Asked(hardware=hardware, retries=get("retries"), spot=spot)


def _accelerators(site: KubeflowSite | VertexSite, asked: str) -> tuple[str, int]:
    """(model, how many) of a training step."""
    count = site.accelerators.count
    if asked:
        return ("", 0) if asked == NO_ACCELERATOR else (asked, max(count, 1))
    if isinstance(site, VertexSite):
        return site.accelerators.type, count
    # On Kubernetes the resource is nvidia.com/gpu whatever the model; the nodes' labels say which.
    models = (value for key, value in site.accelerators.node_selector.items() if key in _MODEL_LABELS)
    return next(models, ANY), count


_MODEL_LABELS = frozenset({"cloud.google.com/gke-accelerator", "nvidia.com/gpu.product"})
