"""Spans: dated increments of data, as in TFX. `{SPAN}` and `{VERSION}` in a path stand for numbers."""

import itertools
import re
from collections.abc import Iterable

from components.core.errors import DataError, UsageError
from components.ingest.folders import folder_source
from components.ingest.items import Source
from components.ingest.trees import Tree

_PLACE = re.compile(r"\\{(SPAN|VERSION)(?::(\d+))?\\}")


def has_span(data: str) -> bool:
    """Whether an address holds a `{SPAN}`."""
    return "{SPAN" in data or "{VERSION" in data


def span_base(data: str) -> tuple[str, str]:
    """Split an address into the folder that is fixed and the pattern below it; `UsageError` if there is no such folder."""
    head = data.partition("{")[0]
    base, separator, _ = head.rpartition("/")
    if "{SPAN" not in data or (not base and not separator):
        fix = "Write for example /data/span-{SPAN}/version-{VERSION}"
        raise UsageError("a path with {VERSION} needs {SPAN}, and a folder before it", where=f"data {data}", fix=fix)
    return base or "/", data.removeprefix(f"{base}/").rstrip("/")


def span_source(tree: Tree, pattern: str, wanted: str, limit: int) -> Source:
    """The chosen spans below `tree` as one source; of each span, the newest version. Keys start with the span's folder.

    Raises `DataError` if nothing matches.
    """
    folders = _newest(tree.folders(), pattern)
    chosen = select_spans(folders, wanted)
    if not chosen:
        found = ", ".join(str(span) for span in sorted(folders)) or "no span at all"
        raise DataError(f"no span matches '{wanted}', found {found}", where=f"{tree.uri}/{pattern}", fix="Check the path and ingest.spans")
    parts = [folder_source(tree, limit, f"{folders[span]}/", span=str(span)) for span in chosen]
    return Source(
        items=itertools.chain.from_iterable(part.items for part in parts),
        kind=f"{parts[0].kind}, {len(parts)} span{'s' if len(parts) > 1 else ''}",
        fingerprint=tree.fingerprint() and [tree.fingerprint(), chosen],
        listing=[tree.listing(), chosen],
        classes=sorted({name for part in parts for name in part.classes}),
        total=sum(part.total for part in parts),
        distinct=all(part.distinct for part in parts),
        remote=tree.remote,
        spans=[str(span) for span in chosen],
        notes=[f"spans: {', '.join(folders[span] for span in chosen)}"],
        problems=[problem for part in parts for problem in part.problems],
    )


def _newest(folders: Iterable[str], pattern: str) -> dict[int, str]:
    """Span → its folder of the highest version."""
    shape = re.compile(_PLACE.sub(_digits, re.escape(pattern)))
    found: dict[int, tuple[int, str]] = {}
    for folder in folders:
        if match := shape.fullmatch(folder):
            groups = match.groupdict()
            version = (int(groups.get("VERSION") or 0), folder)
            span = int(groups["SPAN"])
            found[span] = max(found.get(span, version), version)
    return {span: folder for span, (_, folder) in found.items()}


def _digits(place: re.Match[str]) -> str:
    return rf"(?P<{place[1]}>\d{{{place[2]}}})" if place[2] else rf"(?P<{place[1]}>\d+)"


def select_spans(spans: Iterable[int], wanted: str) -> list[int]:
    """The spans that `latest`, `latest:N`, `all`, `N` or `N-M` means, ascending."""
    known = sorted(set(spans))
    if wanted == "all":
        return known
    if wanted.startswith("latest"):
        return known[-int(wanted.partition(":")[2] or 1) :]
    first, _, last = wanted.partition("-")
    return [span for span in known if int(first) <= span <= int(last or first)]
