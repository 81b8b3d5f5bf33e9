"""The part of Google's filter language (https://google.aip.dev/160) that lists of runs document: `a="x" AND b:"*x*" AND labels.c:*`."""

import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

_TERM = re.compile(r'([a-z_]+(?:\.[a-z0-9_-]+)?)(=|!=|:)("(?:[^"\\]|\\.)*"|\*)')


def matches(item: dict[str, Any], text: str, value: Callable[[dict[str, Any], str], Any]) -> bool:
    """Whether every term holds; ValueError for what is no filter."""
    terms = text.split(" AND ") if text else []
    return all(_holds(item, term, value) for term in terms)


def _holds(item: dict[str, Any], term: str, value: Callable[[dict[str, Any], str], Any]) -> bool:
    match = _TERM.fullmatch(term)
    if match is None:
        raise ValueError(term)
    found, wanted = value(item, match[1]), re.sub(r"\\(.)", r"\1", match[3].strip('"'))
    if match[2] == ":":
        return found is not None and fnmatchcase(found, wanted)
    return (found == wanted) is (match[2] == "=")
