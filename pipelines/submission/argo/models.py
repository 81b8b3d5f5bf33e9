"""The types of the argo-workflows SDK, imported when they are needed, and what the API server wants of them.

Upstream makes no new SDK for Argo 4; what is made here is the same in 3.6 to 4.0 (4.0 has `schedules` and no `schedule` any more).
"""

from importlib import import_module
from typing import Any

from components.core.errors import missing_extra


def model(name: str) -> Any:
    """A model class by its module's name, such as `container`; `UsageError` if the SDK is not installed."""
    try:
        module = import_module(f"argo_workflows.model.{name}")
    except ModuleNotFoundError:
        raise missing_extra("argo", "argo-workflows") from None
    return getattr(module, "".join(part[:1].upper() + part[1:] for part in name.split("_")))


def plain(value: Any) -> dict[str, Any]:
    """A model as the dictionary that goes over the wire, in Kubernetes' spelling."""
    from argo_workflows.api_client import ApiClient

    return ApiClient.sanitize_for_serialization(value)
