"""What Vertex AI refuses of a body, and how it pages and filters."""

import re
from typing import Any

from tests.kubeflow.fake_kfp import Request
from tests.vertex.fake_vertex import invalid

Json = dict[str, Any]
_LABEL = re.compile(r"[a-z0-9_-]{0,63}")


def known(body: Json, names: set[str], where: str) -> None:
    """400 for a key that the reference does not know."""
    if unknown := sorted(set(body) - names):
        raise invalid(where, f'Invalid JSON payload received. Unknown name "{unknown[0]}"')


def shown(operation: Json) -> Json:
    """An operation as it is answered."""
    return {key: value for key, value in operation.items() if key in ("name", "done", "error", "response")}


def named(body: Json, where: str) -> None:
    """400 for a display name or labels that are refused."""
    if not 1 <= len(body.get("displayName", "")) <= 128:
        raise invalid(f"{where}.display_name", "must have 1 to 128 characters")
    labelled(body.get("labels", {}), where)


def labelled(labels: Json, where: str) -> None:
    """400 for what is no label."""
    for key, value in labels.items():
        if not key or not _LABEL.fullmatch(key) or not _LABEL.fullmatch(value):
            raise invalid(f"{where}.labels", f"'{key}: {value}' is no label")


def label_only(item: Json, name: str) -> Any:
    """The value of `labels.NAME` in a filter."""
    if not name.startswith("labels."):
        raise ValueError(name)
    return item.get("labels", {}).get(name.removeprefix("labels."))


def endpoint_value(item: Json, name: str) -> Any:
    """The value of a name in a filter of endpoints."""
    return item["displayName"] if name == "display_name" else label_only(item, name)


def page(found: list[Json], request: Request, key: str, most: int = 2) -> Json:
    """One page of a list."""
    # Short pages, so that whoever reads only the first is found out.
    begin, size = int(request.query.get("pageToken") or 0), min(most, int(request.query.get("pageSize", 100)))
    more = {"nextPageToken": str(begin + size)} if begin + size < len(found) else {}
    return {key: found[begin : begin + size], **more}


def last(name: str) -> str:
    """The id at the end of a resource name."""
    return name.rpartition("/")[2]
