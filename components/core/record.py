"""What a step decided, measured and drew: `<store>/runs/<run-id>/<step>/`.

The report is made from these records alone (an exit task can't take other tasks' outputs), and a half-finished run can be
inspected from them. A record is written when the step starts, and again when it ends, also when it ends with an error.
"""

import html
import json
import re
import signal
import sys
import threading
import time
import traceback
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, Field

from components.core.gate import Verdict
from components.core.machine import Machine, this_machine
from components.core.run_settings import read_settings
from components.core.stores import Store, join, open_store

_TIMED = re.compile(r"(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)-")
_MEDIA = {"png": "image/png", "svg": "image/svg+xml", "jpg": "image/jpeg"}


class Picture(BaseModel):
    """A drawing of a step; `file` is its name beside record.json."""

    name: str
    caption: str
    file: str


class Table(BaseModel):
    """A small table of a step; cells are strings or numbers."""

    name: str
    columns: list[str]
    rows: list[list[str | float | int | None]]


class Record(BaseModel):
    """The content of record.json."""

    schema_: Literal["dual.step/v1"] = Field(default="dual.step/v1", alias="schema")
    step: str
    status: Literal["running", "succeeded", "failed"] = "running"
    started: str = ""
    seconds: float = 0.0
    machine: Machine | None = None
    """What this step ran on, also where its result came from the cache; None in records of older versions."""
    cached: bool = False
    metrics: dict[str, float] = {}
    notes: list[str] = []
    warnings: list[str] = []
    tables: list[Table] = []
    pictures: list[Picture] = []
    verdict: Verdict | None = None
    data: dict[str, Any] = {}
    error: str = ""
    traceback: str = ""


@dataclass
class StepRecord:
    """Collects one step's pieces; `open_step` makes it and writes it."""

    store: Store
    run_id: str
    step: str
    record: Record
    _images: dict[str, bytes] = field(default_factory=dict)

    @cached_property
    def settings(self) -> str:
        """The run's settings (JSON), as its first step kept them; `DataError` if it did not get that far."""
        return read_settings(self.store, self.run_id)

    def metric(self, name: str, value: float) -> None:
        """Keep a scalar; shown in the report and in KFP's Metrics."""
        self.record.metrics[name] = float(value)

    def note(self, text: str) -> None:
        """Keep a sentence for the report, and print it."""
        self.record.notes.append(text)
        self.say(text)

    def warn(self, text: str) -> None:
        """Keep a sentence that the report shows prominently, and print it."""
        self.record.warnings.append(text)
        self.say(f"warning: {text}")

    def say(self, text: str) -> None:
        """Print one progress line now (`step: text`)."""
        sys.stdout.write(f"{self.step}: {text}\n")
        sys.stdout.flush()

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str | float | int | None]]) -> None:
        """Keep a small table."""
        self.record.tables.append(Table(name=name, columns=list(columns), rows=[list(row) for row in rows]))

    def picture(self, name: str, image: bytes, caption: str, kind: Literal["png", "svg", "jpg"] = "png") -> None:
        """Keep a drawing; `name` is unique in the step and becomes its file name."""
        file = f"{name}.{kind}"
        self._images[file] = image
        self.record.pictures.append(Picture(name=name, caption=caption, file=file))

    def verdict(self, verdict: Verdict) -> None:
        """Keep the step's verdict and print it with its reasons."""
        self.record.verdict = verdict
        self.say(verdict.summary())

    def data(self, name: str, value: Any) -> None:
        """Keep a JSON value for later steps and the report (no NaN, no numpy)."""
        self.record.data[name] = value

    def log_metrics(self, artifact: Any) -> None:
        """Log every scalar to a KFP Metrics artifact, which shows it in the UI."""
        for name, value in self.record.metrics.items():
            artifact.log_metric(name, value)

    def html(self) -> str:
        """A self-contained page of this step for KFP's HTML view."""
        return _page(self.record, self._images)

    def save_pieces(self, folder: Path) -> None:
        """Write record.json and the pictures to a folder (for a cached result)."""
        folder.mkdir(parents=True, exist_ok=True)
        for file, image in self._images.items():
            (folder / file).write_bytes(image)
        (folder / "record.json").write_text(self.record.model_dump_json(by_alias=True))

    def load_pieces(self, folder: Path) -> None:
        """Take over the pieces that `save_pieces` wrote, and mark this step as cached."""
        saved = Record.model_validate_json((folder / "record.json").read_text())
        mine = {"started": self.record.started, "machine": self.record.machine}
        self.record = saved.model_copy(update={**mine, "cached": True, "status": "running"})
        self._images = {p.file: (folder / p.file).read_bytes() for p in saved.pictures}

    def write(self) -> None:
        """Put the pictures, then record.json, into the store."""
        for file, image in self._images.items():
            self.store.put(record_name(self.run_id, self.step, file), image)
        body = self.record.model_dump_json(by_alias=True, indent=1)
        self.store.put(record_name(self.run_id, self.step, "record.json"), body.encode())


@contextmanager
def open_step(step: str, *, store: str, run_id: str, view: str = "") -> Iterator[StepRecord]:
    """Open a step's record; write it at the start, and at the end whatever happened in between.

    `view` is the path of KFP's HTML artifact; the step's page is written there at the end.
    """
    record = Record(step=step, started=datetime.now(UTC).isoformat(timespec="seconds"), machine=this_machine())
    book = StepRecord(open_store(store), run_id, step, record)
    book.write()
    began = time.monotonic()
    try:
        with _ending_in_order():
            book.say("started")
            yield book
        book.record.status = "succeeded"
    except BaseException as error:
        book.record.status = "failed"
        book.record.error = f"{type(error).__name__}: {error}"
        book.record.traceback = traceback.format_exc()
        raise
    finally:
        book.record.seconds = round(time.monotonic() - began, 3)
        book.write()
        book.say(f"{'finished' if book.record.status == 'succeeded' else 'failed'} in {book.record.seconds:.1f} s")
        if view:
            Path(view).parent.mkdir(parents=True, exist_ok=True)
            Path(view).write_text(book.html())


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Turn SIGTERM (an interrupted run, a deleted pod) into an exception: servers are stopped, the record says what happened."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminated(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


def record_name(run_id: str, *parts: str) -> str:
    """Where a run's file lies in the store: of a step (`step, file`), or of the run (`file`)."""
    return join("runs", run_id, *parts)


def read_records(store: Store, run_id: str) -> dict[str, Record]:
    """Every record of a run by step name, in no particular order."""
    names = [name for name in store.list(f"runs/{run_id}/") if name.endswith("/record.json")]
    records = (Record.model_validate_json(store.get(name).data) for name in names)
    return {record.step: record for record in records}


def run_ids(store: Store) -> list[str]:
    """Every run that left a record, oldest first: by the time that its name begins with, or (Kubeflow's and Vertex' names) by a record."""
    records = {name.split("/")[1]: name for name in store.list("runs/") if name.endswith("/record.json")}
    return sorted(records, key=lambda run: (_began(store, run, records[run]), run))


def _began(store: Store, run_id: str, record: str) -> str:
    """The beginning of an ISO time, UTC."""
    if timed := _TIMED.match(run_id):
        return "{}-{}-{}T{}:{}:{}".format(*timed.groups())
    return Record.model_validate_json(store.get(record).data).started


def data_uri(file: str, image: bytes) -> str:
    """A picture as a data URI: KFP's sandboxed HTML view makes no external calls."""
    return f"data:{_MEDIA[file.rpartition('.')[2]]};base64,{b64encode(image).decode()}"


def _page(record: Record, images: Mapping[str, bytes]) -> str:
    parts = [f"<h1>{html.escape(record.step)}</h1>"]
    if record.verdict:
        parts.append(f"<p><b>{html.escape(record.verdict.summary())}</b></p>")
    parts += [f"<p class='w'>{html.escape(text)}</p>" for text in record.warnings]
    parts += [f"<p>{html.escape(text)}</p>" for text in record.notes]
    parts += [_table(table) for table in record.tables]
    parts += [
        f"<figure><img alt='{html.escape(p.caption)}' src='{data_uri(p.file, images[p.file])}'><figcaption>"
        f"{html.escape(p.caption)}</figcaption></figure>"
        for p in record.pictures
    ]
    style = (
        "body{font:15px system-ui;margin:2em;max-width:70em}img{max-width:100%}td,th{padding:.2em .8em;text-align:left}.w{color:#8a4b00}"
    )
    return f"<!doctype html><meta charset=utf-8><title>{html.escape(record.step)}</title><style>{style}</style>{''.join(parts)}"


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in table.columns)
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(_cell(cell))}</td>" for cell in row) + "</tr>" for row in table.rows)
    return f"<h2>{html.escape(table.name)}</h2><table><tr>{head}</tr>{rows}</table>"


def _cell(value: str | float | int | None) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def plain(value: Any) -> Any:
    """Numpy scalars and arrays as plain Python, through JSON; NaN and infinity are refused (ValueError)."""
    return json.loads(json.dumps(value, default=lambda v: v.tolist(), allow_nan=False))
