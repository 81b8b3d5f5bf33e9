"""Why an operation on Vertex AI failed, and what mends it: quotas, machines that are out of stock, containers that never serve."""

import re
from collections.abc import Mapping
from typing import Any

from components.core.errors import ConflictError, DualError, RolloutError, UsageError

_QUOTA = re.compile(r"quota", re.IGNORECASE)
_STOCK = re.compile(
    r"out of stock|stockout|temporarily unavailable|insufficient (capacity|resources)|does not have enough resources", re.IGNORECASE
)
_READY = re.compile(r"never became ready|health check|container .*(failed|exited|crash)|model server", re.IGNORECASE)
_IMAGE = re.compile(r"image", re.IGNORECASE)
_PERMITTED, _EXHAUSTED = 7, 8
"""google.rpc.Code."""


def operation_fault(operation: Mapping[str, Any], *, doing: str, project: str, machine: str) -> DualError:
    """The error of an operation that is done and failed; `machine` is what was asked for, in words."""
    error = operation.get("error") or {}
    said, code, where = _said(error), error.get("code"), str(operation.get("name", ""))
    if _STOCK.search(said):
        fix = f"Take another machine or accelerator than {machine} (roll_out_cloud.vertex.machines), another region, or try again later"
        return RolloutError(f"{doing}: no machine of that kind is free ({said})", where=where, fix=fix)
    if code == _EXHAUSTED or _QUOTA.search(said):
        fix = f"Ask for more than {machine} needs: https://console.cloud.google.com/iam-admin/quotas?project={project}"
        return RolloutError(f"{doing}: a quota is used up ({said})", where=where, fix=fix)
    if code == _PERMITTED:
        fix = "dual doctor --target vertex says what is missing; Vertex' service agent must be able to read the store and the image"
        return RolloutError(f"{doing}: somebody lacks a permission ({said})", where=where, fix=fix)
    if _READY.search(said):
        fix = "Look at the container's log (the link that Google names), and at roll_out_cloud.vertex.container: routes, port, args"
        return RolloutError(f"{doing}: the container never served ({said})", where=where, fix=fix)
    if _IMAGE.search(said):
        return RolloutError(f"{doing}: the image can't be used ({said})", where=where, fix="Correct roll_out_cloud.vertex.container.image")
    return RolloutError(f"{doing}: Google could not do it ({said})", where=where, fix="Correct what it names, then run again")


def is_stale(error: DualError) -> bool:
    """Whether a write was refused because its etag is an old one (409 ABORTED, 412, or 400 FAILED_PRECONDITION that speaks of it)."""
    if isinstance(error, ConflictError):
        return True
    return isinstance(error, UsageError) and (error.what.startswith("412") or "etag" in error.what.lower())


def _said(error: Mapping[str, Any]) -> str:
    return " ".join(str(error.get("message", error)).split())[:400].rstrip(".") or "no reason is given"
