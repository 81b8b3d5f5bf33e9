"""Lists as the server gives them: filter, order, pages (backend/src/apiserver/list)."""

import base64
import json
from collections.abc import Sequence
from typing import Any

from tests.kubeflow.wire_types import Refusal, read

_DEFAULT_PAGE, _LARGEST_PAGE = 20, 200
_OPERATIONS = {1: "EQUALS", 2: "NOT_EQUALS", 8: "IN", 9: "IS_SUBSTRING"}
_ALIASES = {"name": "display_name"}


def page_of(items: Sequence[dict[str, Any]], query: dict[str, str], keys: set[str]) -> tuple[list[dict[str, Any]], str]:
    """(the items of a page, token of the next); `keys` may be filtered and sorted by."""
    wanted = {"sort_by": query.get("sort_by", ""), "filter": query.get("filter", "")}
    offset = 0
    if token := query.get("page_token", ""):
        held = _unpacked(token)
        if any(wanted.values()) and wanted != held["wanted"]:
            raise Refusal(400, "page token does not match the supplied sort by and/or filtering criteria.")
        wanted, offset = held["wanted"], held["offset"]
    found = _ordered([each for each in items if _matches(each, wanted["filter"], keys)], wanted["sort_by"], keys)
    size = _size(query.get("page_size", ""))
    more = offset + size < len(found)
    return found[offset : offset + size], _packed({"wanted": wanted, "offset": offset + size}) if more else ""


def _size(text: str) -> int:
    size = int(text or 0)
    if size < 0:
        raise Refusal(400, f"The page size should be greater than 0. Got {size}")
    return min(size or _DEFAULT_PAGE, _LARGEST_PAGE)


def _packed(value: dict[str, Any]) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def _unpacked(token: str) -> dict[str, Any]:
    try:
        return json.loads(base64.b64decode(token, validate=True))
    except ValueError:
        raise Refusal(400, "Invalid package token.") from None


def _ordered(items: list[dict[str, Any]], sort_by: str, keys: set[str]) -> list[dict[str, Any]]:
    words = sort_by.lower().split()
    if not words:
        return items
    if len(words) > 2 or (len(words) == 2 and words[1] not in ("asc", "desc")):
        raise Refusal(400, f"Received invalid sort by format {sort_by!r}.")
    if words[0] not in keys:
        raise Refusal(400, f"Invalid sorting field: {words[0]!r}")
    # A number for each, in the order in which they were made: clocks are too coarse for tests.
    key = "_number" if words[0] == "created_at" else words[0]
    return sorted(items, key=lambda each: each.get(key) or "", reverse=words[-1] == "desc")


def _matches(item: dict[str, Any], text: str, keys: set[str]) -> bool:
    return all(_holds(item, predicate, keys) for predicate in _predicates(text))


def _predicates(text: str) -> list[dict[str, Any]]:
    if not text:
        return []
    try:
        parsed = json.loads(text)
        for predicate in parsed["predicates"]:
            predicate["operation"] = _OPERATIONS.get(predicate["operation"], predicate["operation"])
            predicate["string_value"] = predicate.pop("stringValue", predicate.get("string_value"))
    except (ValueError, KeyError, TypeError) as error:
        raise Refusal(400, f"failed to parse valid filter from {text!r}: {error}") from None
    return read(parsed, "V2beta1Filter")["predicates"]


def _holds(item: dict[str, Any], predicate: dict[str, Any], keys: set[str]) -> bool:
    key = _ALIASES.get(predicate["key"], predicate["key"])
    if key not in keys:
        raise Refusal(400, f"no support for filtering on unrecognized field: {predicate['key']}")
    value, wanted = str(item.get(key) or ""), predicate["string_value"]
    match predicate["operation"]:
        case "EQUALS":
            return value == wanted
        case "NOT_EQUALS":
            return value != wanted
        case "IS_SUBSTRING":
            return wanted.lower() in value.lower()
        case other:
            raise Refusal(400, f"operation {other} is not supported by the fake")
