"""Label conflicts: the same image under more than one label."""

from components.validate_data.scan import Scan


def conflicting_rows(scan: Scan) -> list[int]:
    """Examples whose content is there under another label, too; copies of one image stand side by side."""
    labels: dict[str, set[int]] = {}
    for digest, label in zip(scan.sha256, scan.label.tolist(), strict=True):
        labels.setdefault(digest, set()).add(label)
    rows = [row for row, digest in enumerate(scan.sha256) if len(labels[digest]) > 1]
    return sorted(rows, key=lambda row: (scan.sha256[row], scan.keys[row]))


def conflicts_of(scan: Scan, rows: list[int]) -> dict[str, set[str]]:
    """The first key of each conflicting image → the class names it is there under."""
    first: dict[str, str] = {}
    found: dict[str, set[str]] = {}
    for row in rows:
        key = first.setdefault(scan.sha256[row], scan.keys[row])
        found.setdefault(key, set()).add(scan.texts[row])
    return found
