"""Label conflicts: the same image under more than one label."""

from pathlib import Path

from components.core.examples import read_model
from components.ingest.summary import FILE, Ingested
from components.validate_data.scan import Scan


def conflicting_rows(scan: Scan) -> list[int]:
    """Examples whose content is there under another label, too; copies of one image stand side by side."""
    labels: dict[str, set[int]] = {}
    for digest, label in zip(scan.sha256, scan.label.tolist(), strict=True):
        labels.setdefault(digest, set()).add(label)
    rows = [row for row, digest in enumerate(scan.sha256) if len(labels[digest]) > 1]
    return sorted(rows, key=lambda row: (scan.sha256[row], scan.keys[row]))


def conflicts_of(scan: Scan, rows: list[int]) -> dict[str, str]:
    """The first key of each conflicting image → a sentence about it."""
    names: dict[str, set[str]] = {}
    for row in rows:
        names.setdefault(scan.sha256[row], set()).add(scan.texts[row])
    first = {scan.sha256[row]: scan.keys[row] for row in reversed(rows)}
    return {key: f"the same picture is labelled {' and '.join(sorted(names[digest]))}" for digest, key in first.items()}


def ingest_conflicts(examples: Path) -> dict[str, str]:
    """The label conflicts that ingest found: key → what it says and what it did about it; none if ingest left no list."""
    path = examples / FILE
    if not path.exists():
        return {}
    found = read_model(Ingested, path, "Run the ingest step again").of_kind("label_conflict")
    return {finding.key: f"{finding.detail} ({finding.action} by ingest)" for finding in found}
