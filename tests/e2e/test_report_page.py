"""The report in a real browser: whole, quiet, readable on a phone's width."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.core.gate import Gate, Threshold, judge
from components.core.record import open_step
from components.core.stores import open_store
from components.evaluation.pictures import confusion_picture
from components.report.page import render

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    import shutil

    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("needs Chromium on the PATH (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a refused run with a picture, a long table and a warning."""
    root = tmp_path_factory.mktemp("page")
    gate = Gate(thresholds={"accuracy": Threshold(min=0.8)})
    with open_step("evaluate_mobile", store=str(root), run_id="r1") as record:
        record.metric("accuracy", 0.61)
        record.warn("The images are drawn by the embedded generator.")
        record.picture("confusion", confusion_picture([[8, 2], [3, 7]], ["roses", "tulips"], "Confusion"), "Confusion matrix")
        record.table("Wide", [f"column {n}" for n in range(14)], [[n * 1.5 for n in range(14)]])
        record.verdict(judge("evaluate_mobile", gate, record.record.metrics))
    with open_step("assemble_release", store=str(root), run_id="r1"):
        pass
    (path := root / "page.html").write_text(render(open_store(str(root)), "r1"))
    return path


@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_is_whole_and_quiet(browser: Any, page_file: Path, width: int, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(page_file.as_uri())
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert complaints == []
    assert page.locator("h1").inner_text() == "NOT SHIPPED"
    assert page.locator("h1").bounding_box()["y"] < 200, "the verdict comes first"
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt)")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "nothing sticks out"
    shot = page.screenshot(path=tmp_path / "page.png")
    assert len(shot) > 10_000
    page.close()


def test_the_failed_gate_stands_open(browser: Any, page_file: Path) -> None:
    page = browser.new_page()
    page.goto(page_file.as_uri())
    assert page.get_by_text("accuracy 0.61 (must be >= 0.8)").first.is_visible()
    page.close()
