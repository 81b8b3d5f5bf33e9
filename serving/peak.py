"""`python -m serving.peak`: how much memory the largest process that it sees has had at most, printed whenever it grows, until it is ended.

validate_infra runs it beside a server in a pod whose containers share their process ids (`shareProcessNamespace`): the kernel's own
high-water mark of the server, on any cluster, without a metrics service and without rights on nodes.
"""

import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

PAUSE = 0.5
"""Seconds between two looks. The mark never falls: a look that comes late is late, and no less right."""
_FIELD = re.compile(r"^(Name|VmHWM):\s+(.+)$", re.MULTILINE)
_PRINTED = re.compile(r"^peak: (\d+) kB", re.MULTILINE)


@dataclass(frozen=True)
class Peak:
    """Most resident memory of one process so far."""

    kilobytes: int
    process: str


def find_peak(proc: Path, own: int) -> Peak | None:
    """The largest process below a /proc, this one (`own` is its id) left out; None if there is no other."""
    found = [peak for path in proc.glob("[0-9]*/status") if path.parent.name != str(own) and (peak := _read(path))]
    return max(found, key=lambda peak: peak.kilobytes, default=None)


def _read(status: Path) -> Peak | None:
    try:
        fields = dict(_FIELD.findall(status.read_text()))
    except OSError:
        # It ended meanwhile, or is another user's.
        return None
    # The kernel's own threads have no memory.
    return Peak(int(fields["VmHWM"].split()[0]), fields["Name"]) if "VmHWM" in fields else None


def printed_peak(log: str) -> float | None:
    """The last peak in what this program printed, in MB; None if there is none."""
    found = _PRINTED.findall(log)
    return int(found[-1]) / 1024 if found else None


def main(proc: Path = Path("/proc")) -> None:
    """Look and print for good."""
    largest = 0
    while True:
        peak = find_peak(proc, os.getpid())
        if peak and peak.kilobytes > largest:
            largest = peak.kilobytes
            sys.stdout.write(f"peak: {peak.kilobytes} kB, {peak.process}\n")
            sys.stdout.flush()
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
