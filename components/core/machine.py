"""What machine a step runs on, as far as it may use it: cores, memory, accelerators. Read from the kernel's files, in a millisecond."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

_GIB = 1 << 30
_MODEL = re.compile(r"^Model:\s*(.+?)\s*$", re.MULTILINE)
UNKNOWN_GPU = "NVIDIA GPU"
"""Name of a GPU whose driver does not tell its model."""


class Machine(BaseModel):
    """What a process was given; a container's limits count, not what its node has."""

    cpus: float
    memory_gib: float
    accelerators: dict[str, int] = {}
    """Model → how many."""


def this_machine(root: Path = Path("/")) -> Machine:
    """The machine that this process may use; `root` is where /proc, /sys and /dev are looked for.

    Limits of version 1 and 2 of control groups: https://docs.kernel.org/admin-guide/cgroup-v2.html
    """
    cpus = min([float(_cores()), *_cpu_limits(root)])
    memory = min([_memory(root), *_memory_limits(root)])
    return Machine(cpus=round(cpus, 3), memory_gib=round(memory / _GIB, 2), accelerators=_accelerators(root))


def _cores() -> int:
    # Not every system can say which cores a process is bound to.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_limits(root: Path) -> Iterator[float]:
    whole = _words(root / "sys/fs/cgroup/cpu.max")
    old = _words(root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us") + _words(root / "sys/fs/cgroup/cpu/cpu.cfs_period_us")
    for words in (whole, old):
        if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):
            yield int(words[0]) / int(words[1])


def _memory(root: Path) -> float:
    found = re.search(r"^MemTotal:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else float("inf")


def _memory_limits(root: Path) -> Iterator[float]:
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        words = _words(root / "sys/fs/cgroup" / name)
        if words and words[0].isdigit():
            yield float(words[0])


def _accelerators(root: Path) -> dict[str, int]:
    """The driver lists the node's GPUs; a container has device files only for those that it was given."""
    models = [found[1] for text in map(_text, _information(root)) if (found := _MODEL.search(text))]
    devices = sum(1 for path in (root / "dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdigit())
    given = models[:devices] if len(models) >= devices else [UNKNOWN_GPU] * devices
    return {name: given.count(name) for name in sorted(set(given))}


def _information(root: Path) -> list[Path]:
    return sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))


def _words(path: Path) -> list[str]:
    return _text(path).split()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
