"""The report tells a run's story from its records alone."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from components.core.errors import DataError
from components.core.gate import Gate, Threshold, judge
from components.core.record import open_step, read_records
from components.core.stores import open_store
from components.report.page import render
from components.report.report import write_report
from components.report.story import tell

_PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89"
    b"\x00\x00\x00\nIDATx\x9cc\x00\x01\x00\x00\x05\x00\x01\r\n-\xb4\x00\x00\x00\x00IEND\xaeB`\x82"
)
_GATE = Gate(thresholds={"accuracy": Threshold(min=0.8)})


def _judged(store: str, step: str, accuracy: float) -> None:
    with open_step(step, store=store, run_id="r1") as record:
        record.metric("accuracy", accuracy)
        record.picture("confusion", _PNG, f"Confusion of {step}")
        record.table("Per class", ["class", "recall"], [["daisy", 0.5], ["roses", None]])
        record.verdict(judge(step, _GATE, record.record.metrics))


def _plain(store: str, step: str, **data: str) -> None:
    with open_step(step, store=store, run_id="r1") as record:
        for name, value in data.items():
            record.data(name, value)


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "store")


def test_a_shipped_run_names_its_release(store: str) -> None:
    _judged(store, "evaluate_cloud", 0.9)
    _plain(store, "assemble_release")
    _plain(store, "publish_mobile", release="0123456789ab")
    story = tell(read_records(open_store(store), "r1"))
    assert (story.outcome, story.release, story.exit_code, story.why) == ("SHIPPED", "0123456789ab", 0, [])


def test_a_blessed_release_that_was_never_published_is_a_failure(store: str) -> None:
    """A step whose pod never started leaves no record."""
    _judged(store, "assemble_release", 0.9)
    story = tell(read_records(open_store(store), "r1"))
    assert (story.outcome, story.exit_code) == ("FAILED", 1)
    assert story.why == ["the release was blessed, and the run ended before it was published"]


def test_a_refused_run_says_which_threshold_refused_it(store: str) -> None:
    _judged(store, "evaluate_cloud", 0.9)
    _judged(store, "evaluate_mobile", 0.5)
    _plain(store, "assemble_release")
    story = tell(read_records(open_store(store), "r1"))
    assert (story.outcome, story.exit_code) == ("NOT SHIPPED", 3)
    assert story.why == ["evaluate_mobile: accuracy 0.5 (must be >= 0.8)"]


def test_a_failed_step_gives_its_error_and_exit_code(store: str) -> None:
    with pytest.raises(DataError), open_step("ingest", store=store, run_id="r1"):
        raise DataError("has one class only", where="flowers/", fix="Add another")
    story = tell(read_records(open_store(store), "r1"))
    assert (story.outcome, story.failed_step, story.exit_code) == ("FAILED", "ingest", 4)
    assert "has one class only" in story.why[0]


def test_a_killed_step_counts_as_failed(store: str) -> None:
    book = open_step("train_cloud", store=store, run_id="r1")
    book.__enter__()  # as if the process had died here: the exit never runs
    story = tell(read_records(open_store(store), "r1"))
    assert (story.outcome, story.failed_step) == ("FAILED", "train_cloud")
    assert "killed" in story.why[0]


def test_the_page_is_whole_and_calls_nobody(store: str) -> None:
    _judged(store, "evaluate_cloud", 0.9)
    _judged(store, "evaluate_mobile", 0.5)
    page = render(open_store(store), "r1")
    assert "data:image/png;base64," in page
    assert "Confusion of evaluate_mobile" in page
    assert not re.search(r"(src|href)=['\"]?(https?:)?//", page), "an external call in the page"
    assert "<script" not in page


def test_the_page_escapes_what_data_says(store: str) -> None:
    with open_step("ingest", store=store, run_id="r1") as record:
        record.note("<script>alert(1)</script>")
        record.table("t", ["<b>"], [["<img src=x>"]])
    page = render(open_store(store), "r1")
    assert "<script>alert" not in page
    assert "<img src=x>" not in page


def test_the_exit_step_writes_page_summary_and_story(store: str, tmp_path: Path) -> None:
    _judged(store, "evaluate_mobile", 0.5)
    _plain(store, "assemble_release")
    with open_step("report", store=store, run_id="r1") as record:
        write_report(record, settings="{}", page=tmp_path / "page.html", summary=tmp_path / "summary.md")
    opened = open_store(store)
    assert opened.get("runs/r1/report/index.html").data.decode() == (tmp_path / "page.html").read_text()
    assert (tmp_path / "summary.md").read_text().startswith("# NOT SHIPPED")
    assert read_records(opened, "r1")["report"].data["story"]["exit_code"] == 3


def test_warnings_stand_on_top(store: str) -> None:
    with open_step("train_mobile", store=store, run_id="r1") as record:
        record.warn("ImageNet weights were not to be had: trained from scratch")
    page = render(open_store(store), "r1")
    assert page.index("trained from scratch") < page.index('<section id="train_mobile">')


def test_a_terminated_step_ends_in_order_and_says_so(store: str) -> None:
    code = (
        "import sys, time\n"
        "from components.core.record import open_step\n"
        "with open_step('validate_infra', store=sys.argv[1], run_id='r1'):\n"
        "    try: print('ready', flush=True); time.sleep(60)\n"
        "    finally: print('cleaned up', flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, store], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert [child.stdout.readline().strip() for _ in range(2)] == ["validate_infra: started", "ready"]
    child.terminate()
    assert "cleaned up" in child.stdout.read()
    assert child.wait(timeout=20) == 143
    record = read_records(open_store(store), "r1")["validate_infra"]
    assert (record.status, record.error) == ("failed", "SystemExit: 143")
