"""What a check found."""

from dataclasses import asdict, dataclass
from typing import Literal

Status = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's list: `failed` stops a run or a rollout, `warning` may hurt later, `skipped` was not looked at."""

    check: str
    status: Status
    found: str
    fix: str = ""
    """The command that mends it, or what to do."""

    def as_json(self) -> dict[str, str]:
        """For scripts."""
        return asdict(self)


def ok(check: str, found: str) -> Finding:
    """Nothing is wrong."""
    return Finding(check, "ok", found)


def warning(check: str, found: str, fix: str) -> Finding:
    """It works, and may hurt later; or it can't be known from here."""
    return Finding(check, "warning", found, fix)


def failed(check: str, found: str, fix: str) -> Finding:
    """A run or a rollout would fail."""
    return Finding(check, "failed", found, fix)


def skipped(check: str, found: str, fix: str = "") -> Finding:
    """Not looked at, and why."""
    return Finding(check, "skipped", found, fix)
