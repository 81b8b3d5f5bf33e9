"""This machine: room on the disks that a run writes to, memory, and (for a run here) accelerators."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from components.core.machine import this_machine
from pipelines.doctor.finding import Finding, failed, ok, warning
from pipelines.doctor.visit import Visit

_GIB = float(1 << 30)
DISK_LEAST, DISK_GOOD = 1.0, 5.0
"""GiB: below the first a run can't end; a run on a few thousand photographs with downloads and both models needs about the second."""
MEMORY_LEAST, MEMORY_GOOD = 2.0, 4.0
"""GiB: TensorFlow alone takes about the first."""


def check_disk(visit: Visit) -> list[Finding]:
    """The folders that a run writes to have room."""
    return [_room(name, folder) for name, folder in _folders(visit)]


def check_memory(visit: Visit) -> list[Finding]:
    """There is memory for a run here, as far as this process may use it."""
    machine, free = this_machine(), _available()
    least = min(free, machine.memory_gib)
    found = f"{least:.1f} GiB free of {machine.memory_gib:.1f}, {machine.cpus:g} cores{_accelerators(machine.accelerators)}"
    fix = "End other programs, or raise the container's limit"
    if least < MEMORY_LEAST:
        return [failed("memory", f"{found}: training would be ended for want of memory", fix)]
    if least < MEMORY_GOOD:
        return [warning("memory", f"{found}: enough for small images only", fix)]
    return [ok("memory", found)]


def _folders(visit: Visit) -> Iterator[tuple[str, Path]]:
    yield "disk (temporary files)", Path(tempfile.gettempdir())
    if visit.store and "://" not in visit.store:
        yield "disk (store)", Path(visit.store).expanduser().resolve()


def _room(name: str, folder: Path) -> Finding:
    there = next(path for path in [folder, *folder.parents] if path.exists())
    free = shutil.disk_usage(there).free / _GIB
    found, fix = f"{free:.1f} GiB free at {there}", "Free some room, or choose another folder (--store, TMPDIR)"
    if free < DISK_LEAST:
        return failed(name, found, fix)
    return warning(name, found, fix) if free < DISK_GOOD else ok(name, found)


def _available() -> float:
    """GiB that programs could still get; infinite where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return float("inf")
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 / _GIB if found else float("inf")


def _accelerators(found: dict[str, int]) -> str:
    return "".join(f", {count} x {name}" for name, count in found.items())
