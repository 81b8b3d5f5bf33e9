"""Writes the run's report: one HTML page in the store and in the KFP UI, and a short Markdown summary."""

from pathlib import Path

from components.core.record import StepRecord, read_records, record_name
from components.core.settings import section
from components.report.page import render
from components.report.settings import ReportSettings
from components.report.story import Story, tell


def write_report(record: StepRecord, *, settings: str, page: Path, summary: Path) -> Story:
    """Render the page of this run to `page` and the store, a summary to `summary`, and return the run's story."""
    records = {step: r for step, r in read_records(record.store, record.run_id).items() if step != "report"}
    story = tell(records)
    html = render(record.store, record.run_id, section(settings, "report", ReportSettings))
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(html)
    summary.parent.mkdir(parents=True, exist_ok=True)
    summary.write_text(markdown(story, record.run_id))
    record.store.put(record_name(record.run_id, "report", "index.html"), html.encode())
    record.data("story", {"outcome": story.outcome, "release": story.release, "why": story.why, "exit_code": story.exit_code})
    record.note(f"{story.outcome}{': ' + '; '.join(story.why) if story.why else ''}")
    return story


def markdown(story: Story, run_id: str) -> str:
    """The verdict in a few lines, for KFP's Markdown view (cut at 400,000 characters there)."""
    lines = [f"# {story.outcome}", f"Run `{run_id}`" + (f", release `{story.release}`" if story.release else "")]
    lines += [f"- {reason}" for reason in story.why]
    if story.warnings:
        lines += ["", "## Warnings", *[f"- {text}" for text in story.warnings]]
    return "\n\n".join(lines[:2]) + "\n\n" + "\n".join(lines[2:]) + "\n"
