"""CSV tables as items: `path,label[,split][,span][,slice columns…]`; paths are relative to the table, or addresses."""

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from urllib.parse import urljoin

from components.core.errors import DataError
from components.ingest.fetch import BUCKET, WEB, Web, bucket_reader
from components.ingest.folders import class_name
from components.ingest.items import SPLIT_NAMES, Item, Problem, Source, UnreadableError
from components.ingest.settings import IngestSettings
from components.ingest.spans import select_spans
from components.ingest.trees import read_local

_OWN = ("path", "label", "split", "span")
_MAX_VALUES = 20
Row = dict[str, str]


@dataclass
class _Survey:
    """What a first pass over the table finds."""

    rows: int = 0
    labels: set[str] = field(default_factory=set)
    spans: set[str] = field(default_factory=set)
    values: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    problems: list[Problem] = field(default_factory=list)
    local: bool = True
    digest: str = ""


def table_source(table: Path, address: str, settings: IngestSettings, web: Web) -> Source:
    """Items of the CSV (or .tsv) file `table`, which came from `address`; `web` reads http(s) paths.

    Raises `DataError` that names the line for a table that can't be read, lacks `path` or `label`, or has an unknown split.
    """
    resolve = _Resolver(table, address, web, int(settings.max_file_mb * 1e6))
    survey = _survey(table, resolve)
    spans = [str(span) for span in select_spans((int(span) for span in survey.spans), settings.spans)]
    columns = _slice_columns(survey, settings, table)
    return Source(
        items=_items(table, resolve, columns, survey.spans and set(spans)),
        kind="CSV",
        fingerprint=survey.digest if survey.local else None,
        listing=survey.digest,
        classes=[] if spans else sorted(survey.labels),
        total=0 if spans else survey.rows,
        slice_columns=columns,
        spans=spans,
        problems=survey.problems,
        remote=not survey.local,
    )


class _Resolver:
    """Turns a path of the table into a function that reads it."""

    def __init__(self, table: Path, address: str, web: Web, limit: int) -> None:
        self.address, self.web, self.limit = address, web, limit
        self.is_local = not address.startswith(WEB + BUCKET)
        self.folder = table.parent

    def locate(self, path: str) -> str:
        """The address of a path: absolute path, URL or bucket object."""
        if path.startswith(WEB + BUCKET):
            return path
        if self.is_local:
            return str(self.folder / Path(path.removeprefix("file://")).expanduser())
        if self.address.startswith(WEB):
            return urljoin(self.address, path)
        return f"{self.address.rpartition('/')[0]}/{path}"

    def reader(self, path: str) -> Callable[[], bytes]:
        """How to read a path; a table from elsewhere can't name files of this machine."""
        located = self.locate(path)
        if located.startswith(WEB):
            return partial(self.web.read, located, self.limit)
        if located.startswith(BUCKET):
            return bucket_reader(located, self.limit)
        return partial(read_local, Path(located), self.limit) if self.is_local else partial(_refuse, path)


def _refuse(path: str) -> bytes:
    raise UnreadableError(f"a table from elsewhere can't name the local path {path}")


def _survey(table: Path, resolve: _Resolver) -> _Survey:
    survey, digest = _Survey(), sha256()
    for line, row in _rows(table):
        survey.rows += 1
        digest.update(json.dumps(sorted(row.items())).encode())
        _require_known(row, table, line)
        if not row["path"] or not row["label"]:
            survey.problems.append(Problem("no_label", f"line {line}", "no path" if not row["path"] else f"no label for {row['path']}"))
            continue
        survey.labels.add(class_name(row["label"]))
        if row.get("span"):
            survey.spans.add(row["span"])
        for column in row.keys() - set(_OWN):
            if len(survey.values[column]) <= _MAX_VALUES:
                survey.values[column].add(row[column])
        located = resolve.locate(row["path"])
        survey.local = survey.local and not located.startswith(WEB + BUCKET)
        if survey.local:
            digest.update(_stamp(Path(located)))
    survey.digest = digest.hexdigest()
    return survey


def _stamp(path: Path) -> bytes:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return b"-"
    return f"{found.st_size} {found.st_mtime_ns}".encode()


def _require_known(row: Row, table: Path, line: int) -> None:
    if (split := row.get("split", "").lower()) and split not in SPLIT_NAMES:
        raise DataError(f"unknown split '{row['split']}'", where=f"{table.name} line {line}", fix="Write train, validation or test")
    if (span := row.get("span", "")) and not span.isdecimal():
        raise DataError(f"span '{span}' is no number", where=f"{table.name} line {line}", fix="Number the spans: 1, 2, 3 …")


def _rows(table: Path) -> Iterator[tuple[int, Row]]:
    """(line number, column → text) of every row; column names in lower case, cells stripped."""
    delimiter = "\t" if table.suffix.lower() == ".tsv" else ","
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter)
            header = [name.strip().lower() for name in next(reader, [])]
            _require_columns(header, table)
            for cells in reader:
                if any(cells):
                    padded = [cell.strip() for cell in cells] + [""] * (len(header) - len(cells))
                    yield reader.line_num, dict(zip(header, padded, strict=False))
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8 ({error.reason})", where=table.name, fix="Save the table as UTF-8") from None
    except csv.Error as error:
        raise DataError(f"is not a CSV ({error})", where=table.name, fix="Save the table as CSV again") from None


def _require_columns(header: list[str], table: Path) -> None:
    lacking = [name for name in ("path", "label") if name not in header]
    if lacking:
        found = ", ".join(header) or "nothing"
        raise DataError(f"the column {' and '.join(lacking)} is missing, found {found}", where=table.name, fix="The first line names them")


def _slice_columns(survey: _Survey, settings: IngestSettings, table: Path) -> list[str]:
    if settings.slice_columns is None:
        return sorted(column for column, values in survey.values.items() if 1 < len(values) <= _MAX_VALUES)
    chosen = [column.lower() for column in settings.slice_columns]
    unknown = [column for column in chosen if column not in survey.values]
    if unknown:
        fix = f"The table has {', '.join(sorted(survey.values)) or 'no further columns'}"
        raise DataError(f"no column {', '.join(unknown)}", where=f"{table.name}, ingest.slice_columns", fix=fix)
    return sorted(chosen)


def _items(table: Path, resolve: _Resolver, columns: list[str], spans: set[str]) -> Iterator[Item]:
    for _, row in _rows(table):
        if not row["path"] or not row["label"] or (spans and row.get("span", "") not in spans):
            continue
        slices = {column: row[column] for column in columns}
        split = SPLIT_NAMES.get(row.get("split", "").lower())
        text = json.dumps(slices, sort_keys=True, ensure_ascii=False)
        yield Item(row["path"], class_name(row["label"]), resolve.reader(row["path"]), split, text, row.get("span", ""))
