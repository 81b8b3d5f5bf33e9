"""The text that a server gives Prometheus, read as far as the analysis needs it.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text-based). TF Serving's names begin with a colon
(tensorflow_serving/util/prometheus_exporter.cc).
"""

import math
import re
from collections.abc import Collection, Mapping

from components.core.errors import DualError

Labels = frozenset[tuple[str, str]]
Series = tuple[str, Labels]
"""Name and labels: what identifies a number from one page to the next."""

_SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)(?:\s+-?\d+)?\s*")
_LABEL = re.compile(r'\s*([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"\s*(?:,|$)')
_ESCAPED = re.compile(r"\\(.)")


def read_page(text: str, names: Collection[str], *, where: str = "") -> dict[Series, float]:
    """The series of these names; `DualError` names the first line that is no sample, or whose value is no finite number."""
    page = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _SAMPLE.fullmatch(line)
        if found is None:
            raise _malformed(number, line, where)
        if found["name"] in names:
            page[found["name"], _labels(found["labels"] or "", number, line, where)] = _value(found["value"], number, line, where)
    return page


def with_labels(page: Mapping[Series, float], **labels: str) -> dict[Series, float]:
    """The series that have all these labels."""
    return {series: value for series, value in page.items() if labels.items() <= set(series[1])}


def _labels(text: str, number: int, line: str, where: str) -> Labels:
    found, at = [], 0
    while at < len(text):
        label = _LABEL.match(text, at)
        if label is None:
            raise _malformed(number, line, where)
        found.append((label[1], _ESCAPED.sub(lambda escape: "\n" if escape[1] == "n" else escape[1], label[2])))
        at = label.end()
    return frozenset(found)


def _value(text: str, number: int, line: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise _malformed(number, line, where) from None
    if not math.isfinite(value):
        raise _malformed(number, line, where)
    return value


def _malformed(number: int, line: str, where: str) -> DualError:
    return DualError(f"line {number} of its metrics is no sample: {line[:120]}", where=where, fix="Is it TF Serving that answers there?")
