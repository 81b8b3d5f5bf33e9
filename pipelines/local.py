"""A run on this machine: starts the KFP child, shows a line per step, and says how it ended."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO
from uuid import uuid4

from components.core.record import read_records, record_name
from components.core.stores import Store, open_store
from components.report.story import tell
from pipelines.progress import Progress
from pipelines.settings import Settings

_STEP_LINE = re.compile(r"^(?:\s|\[[^\]]*\])*([a-z_]+): (.*)$")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended."""

    run_id: str
    outcome: str
    """SHIPPED, NOT SHIPPED or FAILED."""
    exit_code: int
    release: str
    """The shipped release's id, or empty."""
    why: str
    report: str
    """Path of the HTML report, if one was written."""
    log: str
    seconds: float


def new_run_id() -> str:
    """A sortable, unique name: UTC time and a random tail."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid4().hex[:4]}"


def run_local(data: str, store_uri: str, settings: Settings, progress: Progress, run_id: str = "") -> Outcome:
    """Run the whole pipeline here and return how it ended; never raises for a failed step, but for what could not be published in the end.

    Intermediate artifacts live in a temporary folder beside the store (or in the system's) and are removed at the end:
    what matters is in the store by then.
    """
    from components.publish_mobile.publish import check_publication

    run_id = run_id or new_run_id()
    store = open_store(store_uri)
    # Not after hours of training.
    check_publication(store, settings.model_dump_json())
    work = _work_folder(store_uri, run_id)
    log = work.parent / f"{run_id}.log"
    began = time.monotonic()
    arguments = {
        "data": str(Path(data).resolve()) if Path(data).exists() else data,
        "store": store.uri,
        # Every layer is in the settings already: no profile lies below them.
        "profile": "",
        "settings": settings.model_dump_json(),
        "run_id": run_id,
    }
    try:
        code = _run_child({"pipeline_root": str(work), "arguments": arguments}, work, log, progress)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        store.put(record_name(run_id, "run.log"), log.read_bytes())
        log.unlink()
    return _outcome(store, run_id, code, time.monotonic() - began)


def _work_folder(store_uri: str, run_id: str) -> Path:
    base = Path.cwd() / ".dual" if "://" in store_uri else Path(store_uri).expanduser().resolve() / ".work"
    (folder := base / run_id).mkdir(parents=True)
    return folder


def _run_child(request: dict[str, object], work: Path, log: Path, progress: Progress) -> int:
    request_file = work / "request.json"
    request_file.write_text(json.dumps(request))
    # The fixed hash seed gives the runner's sets, and so the branches, the same order in every run.
    defaults = {"TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONHASHSEED": "0"}
    environment = {**defaults, **os.environ, "PYTHONUNBUFFERED": "1"}
    # A session of its own, so that an interrupt ends the whole tree of step processes and not only the runner.
    child = subprocess.Popen(
        [sys.executable, "-m", "pipelines.kfp_local", str(request_file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,
    )
    with _ended_with_us(child), log.open("w") as file, progress:
        assert child.stdout is not None  # noqa: S101 - PIPE was asked for
        _follow(child.stdout, file, progress)
        return child.wait()


@contextlib.contextmanager
def _ended_with_us(child: "subprocess.Popen[str]") -> Iterator[None]:
    try:
        yield
    finally:
        if child.poll() is None:
            _signal_group(child.pid, signal.SIGTERM)
            child.wait()
            _await_group(child.pid, seconds=30.0)


def _await_group(group: int, seconds: float) -> None:
    """Wait until every process of the group is gone; those that don't end in time are killed."""
    deadline = time.monotonic() + seconds
    while _signal_group(group, 0):
        if time.monotonic() > deadline:
            _signal_group(group, signal.SIGKILL)
            return
        time.sleep(0.05)


def _signal_group(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def _follow(lines: IO[str], log: IO[str], progress: Progress) -> None:
    for line in lines:
        log.write(line)
        log.flush()
        if match := _STEP_LINE.match(line.rstrip()):
            progress.line(match[1], match[2])


def _outcome(store: Store, run_id: str, code: int, seconds: float) -> Outcome:
    records = read_records(store, run_id)
    story = tell(records)
    log = f"{store.uri}/{record_name(run_id, 'run.log')}"
    why = "; ".join(story.why) if records or not code else f"the pipeline could not start; the end of {log} says why"
    return Outcome(
        run_id=run_id,
        outcome=story.outcome,
        exit_code=story.exit_code,
        release=story.release,
        why=why,
        report=_report_path(store, run_id),
        log=log,
        seconds=round(seconds, 1),
    )


def _report_path(store: Store, run_id: str) -> str:
    name = f"runs/{run_id}/report/index.html"
    return f"{store.uri}/{name}" if store.exists(name) else ""
